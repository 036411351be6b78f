"""Reading hostile files where nothing can be harmed, and judging what came of it.

A case is a file that was changed. What may come of it is an error that the reader documents and that names the file, or
the right content. What may not: another error, a crash, more than ten seconds, more than two gigabytes, anything that
looks like running what the file says, or another content.
"""

import os
import re
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Union

from child import in_child

SECONDS = 10
MEMORY = 2 << 30
RUNNING = ('os.system', 'os.exec', 'os.posix_spawn', 'os.spawn', 'os.fork', 'subprocess.', 'socket.', 'ctypes.dlopen')
CHANGING = ('os.remove', 'os.rename', 'os.rmdir', 'os.mkdir', 'os.link', 'os.symlink', 'os.chmod', 'shutil.')


class Watch:
    """Notes what no reader does: it hears of it from Python itself."""

    def __init__(self, folder: Path):
        self.seen, self.awake = [], False
        self.own = (str(folder), tempfile.gettempdir(), os.devnull)
        standard = getattr(sys, 'stdlib_module_names', ())  # since Python 3.10
        self.loaded = {name.partition('.')[0] for name in sys.modules}.union(standard)

    def __call__(self, event: str, arguments: tuple) -> None:
        """Called by Python."""
        if not self.awake:
            return
        if event.startswith(RUNNING) or (event.startswith(CHANGING) and not self.is_own(arguments[0])):
            self.note(event, arguments)
        elif event == 'exec' and getattr(arguments[0], 'co_filename', '').startswith('<') and self.is_text(arguments):
            self.note(event, arguments)
        elif event == 'import' and arguments[0].partition('.')[0] not in self.loaded:
            self.note(event, arguments)
        elif event == 'open' and isinstance(arguments[0], (str, bytes)):
            path, mode, flags = os.fsdecode(arguments[0]), arguments[1] or '', arguments[2]
            writes = set(mode) & set('wax+') or flags & (os.O_WRONLY | os.O_RDWR)
            if writes and not self.is_own(path) or path.endswith('secret'):
                self.note(event, arguments)

    def is_own(self, path: Any) -> bool:
        return isinstance(path, (str, bytes)) and os.fsdecode(path).startswith(self.own)

    @staticmethod
    def is_text(arguments: tuple) -> bool:
        return arguments[0].co_filename in ('<string>', '<stdin>', '<unknown>')

    def note(self, event: str, arguments: tuple) -> None:
        """Remember it, and stop it."""
        self.seen.append(f'{event} {arguments!r:.100}')
        raise RuntimeError(f'a reader must not: {event}')


def judge(read: Callable[[Path], Any], path: Path, right: Callable[[Any], bool]) -> str:
    """``'refused'`` or ``'right'``, or what is wrong."""
    try:
        value = read(path)
    except (ValueError, OSError) as error:
        if str(path) not in str(error):
            return f'the error does not name the file: {error!r:.300}'
        if too_much_memory(error):
            return f'the error hides that it wanted more memory than there is: {error!r:.300}'
        return 'refused'
    except BaseException:
        return traceback.format_exc(limit=-4)
    try:
        return 'right' if right(value) else f'another content was accepted: {value!r:.300}'
    except Exception:
        return f'{traceback.format_exc(limit=-4)}: the slow reader cannot read what was accepted: {value!r:.300}'


def too_much_memory(error: BaseException) -> bool:
    """Whether memory was the reason of an error or of those behind it."""
    while error is not None:
        if isinstance(error, MemoryError) or re.search('(?i)(unable to|cannot|can.t) allocate', str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _limit_memory() -> None:
    if sys.platform == 'linux':
        pages = int(Path('/proc/self/statm').read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _run(case: Callable, cases: Mapping, original: bytes, path: Path, read: Callable, right: Callable, at: int) -> Dict:
    def result(data: Union[bytes, Callable[[Path], None]], armed: bool) -> str:
        path.unlink(missing_ok=True)
        data(path) if callable(data) else path.write_bytes(data)
        watch.awake = armed
        try:
            return judge(read, path, lambda value: right(value, path))
        finally:
            watch.awake = False

    watch = Watch(path.parent)
    warnings.simplefilter('ignore')
    sys.dont_write_bytecode = True
    found = {'as it was': result(original, False)} if original is not None else {}
    sys.setrecursionlimit(1000)  # pytest's is that of its caller
    _limit_memory()
    watch.loaded.update(name.partition('.')[0] for name in sys.modules)
    sys.addaudithook(watch)
    for name, content in cases.items():
        os.pwrite(at, f'{name!r:60.60}'.encode(), 0)
        data = case(content)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of this process's own time: the machine may be busy
        signal.alarm(6 * SECONDS)
        found[name] = result(data, True)
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if watch.seen:
            found[name] = f'the file ran something: {watch.seen}'
            watch.seen.clear()
    return found


def run_cases(
    cases: Mapping[Any, Any],
    path: Path,
    read: Callable[[Path], Any],
    right: Callable[[Any, Path], bool],
    case: Callable[[Any], Any] = lambda content: content,
    original: bytes = None,
) -> Counter:
    """Read files in a process of its own; AssertionError names the cases with which something is wrong.

    Args:
        cases: Name → what ``case`` makes a file of.
        path: Where the files are put, one after the other; nothing else is in its folder.
        read: What is tested.
        right: Whether a content is that of the file.
        case: Gives bytes, or a function that writes the file.
        original: A file that must be read.

    Returns:
        How many cases were ``'refused'`` and ``'right'``.
    """
    with open(path.parent / 'at', 'wb') as at:
        found, ended = in_child(_run, case, cases, original, path, read, right, at.fileno(), seconds=600)
    where = (path.parent / 'at').read_text().strip()
    assert not ended, f'{path.name}: signal {ended} ended the process in case {where}'
    assert isinstance(found, dict), f'{path.name}: {found!r} in case {where}'
    if original is not None:
        assert found.pop('as it was') == 'right', 'the file that was not changed is not read'
    assert list(found) == list(cases)
    wrong = {name: text for name, text in found.items() if text not in ('refused', 'right')}
    shown = '\n'.join(f'{path.name}, case {name!r}: {text}' for name, text in list(wrong.items())[:5])
    assert not wrong, f'{len(wrong)} of {len(found)} cases are wrong:\n{shown}'
    return Counter(found.values())
