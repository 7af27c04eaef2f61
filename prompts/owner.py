"""What the owner of a catalogue says to a model, as lines of a prompt."""

from prompts.lines import one_line
from prompts.template import phrase

GUIDANCE_CHARS = 500
OBJECTIVE_CHARS = 300


def owner_note(guidance: str, objective: str = "") -> str:
    """One line of each; empty where the owner has said nothing.

    `guidance` is about the catalogue and its users, `objective` about what to prefer.
    """
    lines = []
    if said := one_line(guidance, GUIDANCE_CHARS):
        lines.append(phrase("owner_guidance", guidance=said))
    if said := one_line(objective, OBJECTIVE_CHARS):
        lines.append(phrase("owner_objective", objective=said))
    return "\n".join(lines)
