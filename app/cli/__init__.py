"""`unillmrec`: the command line. `main` is the console script."""

import typer

from app.cli import doctor, evaluate, feeding, reading, running, transfer, trees, versions

commands = typer.Typer(
    name="unillmrec",
    help="A recommender service that walks a semantic tree of your catalogue.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands.command("serve")(running.serve)
commands.command("import")(transfer.import_file)
commands.command("export")(transfer.export)
commands.command("events")(feeding.events)
commands.command("recommend")(reading.recommend)
commands.command("tree")(trees.show)
commands.command("rebuild")(trees.rebuild)
commands.command("versions")(versions.versions)
commands.command("activate")(versions.activate)
commands.command("doctor")(doctor.doctor)
commands.add_typer(evaluate.commands, name="evaluate")
commands.command("version")(running.version)


def main() -> None:
    """Run a command: 0 when it did what it was asked, 1 when it could not, 2 on a wrong call."""
    commands()
