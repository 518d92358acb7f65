"""RUN lines of gimlet-opt and filecheck alone, in forks of one process: starting Python anew took most of the time.

What a fork runs, reads and prints is what the command would. RUN lines with other commands are left to lit's shell.
"""

import os
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import filecheck.main
import lit.Test
import lit.TestRunner
from lit.formats import ShTest

from gimlet.passes.registry import PASSES, load
from gimlet.tools import gimlet_opt

_MOST_FILES = 1024
_SIGNS = {"<", ">", ">>", "&", "&&", ";", "||", ">&"}
COMMANDS: dict[str, Callable[[], Any]] = {"gimlet-opt": gimlet_opt.main, "filecheck": filecheck.main.main}


def load_passes() -> None:
    """Imports the passes before anything is forked."""
    for name in PASSES:
        load(name)


class ForkedTest(ShTest):
    """A file with RUN lines, each a pipeline; it fails with the first line of which any command does."""

    def execute(self, test: Any, litConfig: Any) -> Any:  # noqa: N803 (lit passes it by name)
        lines = lit.TestRunner.parseIntegratedTestScript(test)
        if isinstance(lines, lit.Test.Result):
            return lines
        pipelines = [pipeline_of(line.command, test.getSourcePath()) for line in lines]
        commands = [words for pipeline in pipelines for words in pipeline]
        if any(words[0] not in COMMANDS or _SIGNS & set(words) for words in commands):
            return super().execute(test, litConfig)
        for pipeline in pipelines:
            codes, printed = run(pipeline, test.config.environment)
            if any(codes):
                text = " | ".join(shlex.join(words) for words in pipeline)
                return lit.Test.Result(lit.Test.FAIL, f"{text}\nexit codes {codes}\n{printed}")
        return lit.Test.Result(lit.Test.PASS, "")


def pipeline_of(line: str, path: str) -> list[list[str]]:
    """The words of each command. Lit puts where a line is from before it, as `%dbg(RUN: at line 1) `.

    Of signs between commands only `|` is known here: a line with another one is not taken.
    """
    lexer = shlex.shlex(re.sub(r"^%dbg\([^)]*\)\s*", "", line), posix=True, punctuation_chars="|<>&;")
    lexer.commenters, lexer.whitespace_split = "", True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word.replace("%s", path))
    return commands


def run(pipeline: list[list[str]], environment: dict[str, str]) -> tuple[list[int], str]:
    """The exit codes of the commands, and what they print but for what the next one reads."""
    with tempfile.TemporaryFile() as printed, open(os.devnull) as nothing:
        reading, children = nothing.fileno(), list[int]()
        for position, words in enumerate(pipeline):
            is_last = position == len(pipeline) - 1
            following, writing = (-1, printed.fileno()) if is_last else os.pipe()
            child = os.fork()
            if not child:
                become(words, environment, reading, writing, printed.fileno())
            children.append(child)
            for descriptor in {reading, writing} - {nothing.fileno(), printed.fileno()}:
                os.close(descriptor)
            reading = following
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        printed.seek(0)
        return codes, printed.read().decode(errors="replace")


def become(words: list[str], environment: dict[str, str], reading: int, writing: int, errors: int) -> None:
    """Makes this process a command, which ends it."""
    code: Any = 1
    try:
        for number, descriptor in enumerate((reading, writing, errors)):
            os.dup2(descriptor, number)
        os.closerange(3, _MOST_FILES)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = list(words)
        COMMANDS[words[0]]()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
