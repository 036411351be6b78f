"""The newest checkpoint of a work folder."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Union


def last_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """Path of the checkpoint that ``last_checkpoint`` of a work folder names, or None if there is no such file.

    The file has the path that the checkpoint was written to. A folder may have been moved or copied since: the
    checkpoint of that name beside the file comes first.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    if not pointer.is_file():
        return None
    written = pointer.read_text().strip()
    beside = pointer.with_name(Path(written).name)
    return str(beside) if beside.is_file() else written
