"""Runs command lines one after the other, each in a process of its own that has the libraries imported already.

python run_commands.py '[["scripts/train.py", "--spec", ...], ...]' prints [[status, stdout, stderr], ...]
"""

import contextlib
import json
import os
import runpy
import sys
import tempfile
import traceback

import pipeline.evaluation.report
import pipeline.samples.build
import pipeline.simulation.simulate
import pipeline.training.predict
import pipeline.training.train  # noqa: F401


def run(words: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = words
            status = 1
            try:
                runpy.run_path(words[0], run_name="__main__")
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(OSError):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


if __name__ == "__main__":
    print(json.dumps([run(words) for words in json.loads(sys.argv[1])]))
