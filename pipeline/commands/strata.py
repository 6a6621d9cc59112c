"""The console command `strata`: lists the commands, or runs one of them.

.venv/bin/strata build --spec feature_specs/short_video.yaml --raw demo/raw --out demo/samples
"""

import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version

from pipeline.commands.command_line import is_first_rank, run_command
from pipeline.errors import StrataError, one_line_errors

PROGRAM = ".venv/bin/strata"
# In the order of the flow: each command is the module of its name in this folder, and this is what it makes.
COMMANDS = {
    "simulate": "raw logs of a simulated feed, to try Strata on",
    "build": "a sample store from raw logs: Parquet by split and day, data.html",
    "train": "a run from a sample store: checkpoints, metrics.jsonl",
    "evaluate": "a report on a run: report.html, metrics.json, predictions",
    "compare": "a report that holds runs against each other on the same rows",
}


def main() -> None:
    """Runs the command that the first word names, with the words after it."""
    word, *words = sys.argv[1:] or ["--help"]
    with one_line_errors(quiet=not is_first_rank()):
        if word in ("-h", "--help"):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `strata | head` ends in silence
            print(overview())
        elif word == "--version":
            print(f"strata {version('strata')}")
        elif word in COMMANDS:
            # Not at the top: `strata` alone must not wait for PyTorch.
            command = import_module(f"pipeline.commands.{word}")
            run_command(command.main, f"{PROGRAM} {word}", words, command.EXAMPLE)
        else:
            near = get_close_matches(word, COMMANDS, n=1)
            fix = f"did you mean `{near[0]}`?" if near else f"the commands are {', '.join(COMMANDS)}"
            raise StrataError(f"there is no command `{word}`", where="strata", fix=fix)


def overview() -> str:
    """The commands in the order of the flow, and what to type next."""
    lines = [f"  {name:10}{makes}" for name, makes in COMMANDS.items()]
    return "\n".join(
        [
            "Strata takes raw logs of a feed to a trained ranking model and a report, in this order:",
            "",
            *lines,
            "",
            f"Next: {PROGRAM} simulate --help; with logs of your own: {PROGRAM} build --help",
        ]
    )


if __name__ == "__main__":
    main()
