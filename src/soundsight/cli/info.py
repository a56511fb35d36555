"""Show what a bug report needs: versions, processors, memory, GPUs, ffmpeg, codecs, runtimes. Nothing is sent.

soundsight info          # one screen, to be pasted
soundsight info --json   # for programs
"""

from __future__ import annotations

import json

from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.commands import InfoOptions

OPTIONS = InfoOptions


def run(options: InfoOptions, given: Given) -> int:
    from soundsight import info

    facts = info.collect()
    for line in json.dumps(facts, indent=2).splitlines() if options.json else info.lines(facts):
        console.output(line)
    return 0
