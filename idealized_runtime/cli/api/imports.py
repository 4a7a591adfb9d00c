"""Results of vllm bench serve, GuideLLM, AIPerf (both since 0.3) and HELM, summarised, and written as a log."""

from pathlib import Path

from idealized_runtime.cli.api.summary import print_imported
from idealized_runtime.cli.flags import add_shared

EXAMPLES = "example: idealized-runtime api import results.json --hardware A100-80GB --log logs/api/NAME.jsonl\n"


def add_arguments(parser):
    """Flags of the command."""
    parser.add_argument("file", type=Path, help="a result, report or export, or a folder of HELM runs")
    add_shared(
        parser, "--hardware", help="what the model ran on, which the file does not say: its row where it has one"
    )
    add_shared(parser, "--log", help="log to write, which every other command reads")
    add_shared(parser, "--json")


def run(arguments) -> int:
    """Summarise another tool's requests, and write them as a log where asked to."""
    from idealized_runtime.records import Journal
    from idealized_runtime.records.importers import import_file

    imported = import_file(arguments.file, hardware=arguments.hardware)
    if arguments.log is not None:
        try:
            header, trials = imported.log()
        except ValueError as error:
            raise ValueError(f"{arguments.file} {error}") from error
        # A journal that keeps nothing refuses what one of a file would refuse in its midst.
        unwritten = Journal(None, header)
        for number, trial in enumerate(trials):
            unwritten.append("trial", trial, where=f"{arguments.file}: request {number}")
        with Journal(arguments.log, header) as journal:
            if num_trials := len(journal.log.records):
                raise ValueError(f"{arguments.log} holds {num_trials} trials already; give another --log")
            for trial in trials:
                journal.append("trial", trial, is_waiting=False)
            journal.finish()
    return print_imported(arguments.file, imported, {}, as_json=arguments.json)
