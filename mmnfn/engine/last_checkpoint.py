"""The newest checkpoint of a work folder."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Union


def last_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """Path of the checkpoint that ``last_checkpoint`` of a work folder names, or None if there is no such file.

    The file has the path that the checkpoint was written to. A folder may have been moved or copied since: the
    checkpoint of that name beside the file comes first. What the path names may be missing; it is empty where the file
    is, as a crash of the machine can leave it.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    if not pointer.is_file():
        return None
    written = pointer.read_text('utf-8', 'replace').strip()
    beside = pointer.parent / Path(written).name
    return str(beside) if beside.is_file() else written
