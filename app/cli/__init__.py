"""`unillmrec`: the command line. `main` is the console script."""

import inspect

import typer

from app.cli import (
    backups,
    doctor,
    enrich,
    evaluate,
    events,
    keys,
    recommend,
    recommend_all,
    serve,
    transfer,
    trees,
    tune,
    variants,
    versions,
)

commands = typer.Typer(
    name="unillmrec",
    help="A recommender service that walks a semantic tree of your catalogue.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands.command("serve")(serve.serve)
commands.command("import")(transfer.import_file)
commands.command("export")(transfer.export)
commands.command("enrich")(enrich.enrich)
commands.command("events")(events.events)
commands.command("recommend")(recommend.recommend)
commands.command("recommend-all")(recommend_all.recommend_all)
commands.command("tree")(trees.show)
commands.command("rebuild")(trees.rebuild)
commands.command("tune")(tune.tune)
commands.command("variants")(variants.variants)
commands.command("versions")(versions.versions)
commands.command("activate")(versions.activate)
commands.command("backup")(backups.backup)
commands.command("restore")(backups.restore)
commands.command("compact")(backups.compact)
commands.command("doctor")(doctor.doctor)
commands.add_typer(keys.commands, name="keys")
commands.add_typer(evaluate.commands, name="evaluate")
commands.command("version")(serve.version)


def _flow_help(group: typer.Typer) -> None:
    """Join the lines of each paragraph of help: Typer keeps the line breaks of docstrings."""
    for known in group.registered_commands:
        paragraphs = (inspect.getdoc(known.callback) or "").split("\n\n")
        known.help = "\n\n".join(" ".join(one.split()) for one in paragraphs)


for _group in (commands, keys.commands, evaluate.commands):
    _flow_help(_group)


def main() -> None:
    """Run a command; exit code 0 on success, 1 on failure, 2 for wrong arguments."""
    commands()
