"""Run something that may be killed, or must not change this process, in a fork of it; and ports for processes."""

import os
import pickle
import random
import signal
import socket


def in_child(function, *arguments, seconds=300):
    """Call a function in a forked process.

    Args:
        function: What to call.
        *arguments: Its arguments.
        seconds: After that time the process is killed.

    Returns:
        The result, or the exception (whose traceback is lost); the signal that ended the process, or 0.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            try:
                result = function(*arguments)
            except BaseException as error:
                result = error
            with open(writer, 'wb') as stream:
                stream.write(pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, 'rb') as stream:
        content = stream.read()
    status = os.waitpid(pid, 0)[1]
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return (pickle.loads(content) if content else None), ended


def free_port():
    """A port that is free, and stays so: below those that the system gives to whoever asks for any."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
                return port
            except OSError:
                continue
