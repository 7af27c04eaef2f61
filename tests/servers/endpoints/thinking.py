"""Kinds of endpoints whose models think before they answer."""

from tests.servers.endpoints.answerer import Answer, Writing
from tests.servers.endpoints.kind import Kind, Sent, Written

_ALOUD = "The user wants options by number. One idea: {draft} But wait, that is the wrong order.\n"


def _after(before: str, between: str, after: str = "") -> Writing:
    """Thoughts with a draft in them between two marks, then the answer."""

    def writes(answer: Answer) -> str:
        return f"{before}{_ALOUD.format(draft=answer.draft)}{between}{answer.text}{after}"

    return writes


def _apart(name: str, *, swapped: bool = False) -> Kind:
    """Thoughts in a field of their own; `swapped`: the answer is there, and no content."""

    def sends(written: Written) -> Sent:
        if swapped:
            return Sent(written.completion({**written.message(content=None), name: written.text}))
        return Sent(written.completion(written.message(**{name: "Let me think."})))

    return Kind("", "", sends=sends)


def _parts(written: Written) -> Sent:
    thoughts = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me think."}]}
    parts = [thoughts, {"type": "text", "text": written.text}]
    return Sent(written.completion(written.message(content=parts)))


KINDS = (
    Kind(
        "r1-think",
        "DeepSeek-R1 on vLLM without a reasoning parser: thoughts in the content",
        writes=_after("<think>\n", "</think>\n\n"),
    ),
    Kind(
        "qwq-only-end",
        "QwQ, R1 since January 2025: the template opens <think>, the reply only closes it",
        writes=_after("", "</think>\n\n"),
    ),
    Kind(
        "phi-think-fence",
        "Phi-4-reasoning: <think>, and the answer in a fence with words around",
        writes=_after("<think>", "</think>\nHere you are:\n```json\n", "\n```"),
    ),
    Kind(
        "nemotron-empty-think",
        "Nemotron, Qwen3 with /no_think: an empty <think> before the answer",
        writes=lambda answer: f"<think>\n\n</think>\n\n{answer.text}",
    ),
    Kind(
        "claude-thinking-tag",
        "models that are told to think in <thinking>, answer in <answer>",
        writes=_after("<thinking>", "</thinking>\n<answer>", "</answer>"),
    ),
    Kind(
        "gemini-thought-tag",
        "Gemini's compatible endpoint with thoughts included",
        writes=_after("<thought>", "</thought>"),
    ),
    Kind(
        "magistral-marks",
        "Magistral behind llama.cpp or vLLM: [THINK] … [/THINK]",
        writes=_after("[THINK]", "[/THINK]"),
    ),
    Kind("magistral-parts", "Mistral's API: content in parts, the first is thinking", sends=_parts),
    Kind(
        "gpt-oss-bare",
        "gpt-oss where the special tokens are dropped: analysis…assistantfinal…",
        writes=_after("analysis", "assistantfinal"),
    ),
    Kind(
        "gpt-oss-channels",
        "gpt-oss without a harmony parser: all channels in the content",
        writes=_after(
            "<|channel|>analysis<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
            "<|return|>",
        ),
    ),
    Kind(
        "kimi-marks", "Kimi-VL-Thinking: ◁think▷ … ◁/think▷", writes=_after("◁think▷", "◁/think▷")
    ),
    Kind(
        "cohere-marks",
        "Command A Reasoning without a parser",
        writes=_after(
            "<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>", "<|END_RESPONSE|>"
        ),
    ),
    Kind(
        "glm-box",
        "GLM-4.5V, GLM-4.1V-Thinking: the answer in a box",
        writes=_after("<think>", "</think><|begin_of_box|>", "<|end_of_box|>"),
    ),
    Kind(
        "draft-aloud",
        "models without tags that think aloud and then answer",
        writes=_after("", "\nMy final answer is:\n"),
    ),
    Kind(
        "reasoning-content",
        "DeepSeek's API, vLLM and SGLang with a reasoning parser: reasoning_content",
        sends=_apart("reasoning_content").sends,
    ),
    Kind(
        "reasoning-field",
        "OpenRouter, Groq, newer vLLM: the field is called reasoning",
        sends=_apart("reasoning").sends,
    ),
    Kind(
        "answer-as-reasoning",
        "Qwen3 that does not think behind vLLM's deepseek_r1 parser: content is null, the answer "
        "stands in reasoning_content",
        sends=_apart("reasoning_content", swapped=True).sends,
    ),
    Kind(
        "all-thinking-4x",
        "gpt-5, o-series: content is empty, finish_reason length, all tokens were reasoning",
        thinks=900,
    ),
    Kind(
        "all-thinking-16x",
        "the same with longer thoughts",
        thinks=4_000,
    ),
    Kind(
        "open-think-at-limit",
        "R1, Qwen3: an open <think> where max_tokens was reached",
        thinks=900,
        shows_thoughts=True,
    ),
)
