"""Run a function in a forked process that may be killed; find a free port."""

import multiprocessing
import os
import random
import socket


def in_child(function, *arguments):
    """Call a function in a fork of this process.

    Args:
        function: Function to call.
        *arguments: Its arguments.

    Returns:
        The result or the exception, and the signal that ended the process, or 0.
    """

    def call():
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            result = function(*arguments)
        except BaseException as error:
            result = error
        sender.send(result)

    fork = multiprocessing.get_context('fork')
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=call)
    process.start()
    sender.close()
    try:
        result = receiver.recv() if receiver.poll(300) else None
    except EOFError:  # it was killed
        result = None
    process.join(1)
    process.kill()
    process.join()
    return result, max(0, -process.exitcode)


def free_port():
    """Return a free port below those that the system hands out by itself, so that it stays free."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
                return port
            except OSError:
                continue
