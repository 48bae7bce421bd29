"""A run that is told to end by SIGTERM, which a cloud or a batch system sends before the kill.

    SIGTERM → the notice is heard → all processes leave the rollout at the same tick → the last
    completed iteration is saved → status 75, "start me again with --resume"

A rollout under way is discarded. An update is not: it has taken the old state's memory, so it ends,
and its iteration counts. What is saved is what an undisturbed run would have had there.

jax's own service (`multihost_utils.reached_preemption_sync_point`) hears of the same signal, but
lets a program go on to its next step. A rollout adds up counts of all processes at each of its
ticks anyway; a notice is one more, so all hear of it within a tick, and nothing else is sent.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from mem1_jax.parallel import multihost

STATUS = 75  # EX_TEMPFAIL of sysexits.h
# systemd hangs a session up right after it told it to end.
_NOTICES = (signal.SIGTERM, signal.SIGHUP)
_SAME_NOTICE_S = 2.0  # a process group's and a supervisor's SIGTERM are one notice
_told = threading.Event()


class Preempted(Exception):
  """The run was told to end, and left; the message says where it goes on."""


def is_told() -> bool:
  """Whether this process was told to end."""
  return _told.is_set()


def is_any_told() -> bool:
  """Whether any process was; all of them ask, and all get the same answer."""
  return multihost.is_any(is_told())


def farewell(workdir: Any, name: str, step: int) -> str:
  """What a run says that leaves after that many iterations or steps."""
  what = f'{name} {step} is saved in {workdir}' if step else f'before {name} 1, nothing to save'
  return f'told to end; {what}; the same command with --resume goes on from there'


@contextlib.contextmanager
def listening() -> Iterator[None]:
  """SIGTERM and SIGHUP are a notice meanwhile; one more, two seconds later or after, kills at once.

  Only the main thread can hear signals: elsewhere nothing changes.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  ours, theirs = socket.socketpair()
  theirs.setblocking(False)
  # Python runs handlers between two steps of the main thread, which may be in a program of jax for
  # a minute. The numbers of signals reach a file at once, and a thread that reads it.
  before = {number: signal.getsignal(number) for number in _NOTICES}
  for number, handler in before.items():
    if handler != signal.SIG_IGN:  # nohup
      signal.signal(number, lambda *_: None)
  wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
  thread = threading.Thread(target=_hear, args=(ours,), daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
      signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    theirs.shutdown(socket.SHUT_WR)  # ends the thread, though a forked child may hold the socket
    thread.join()
    theirs.close()
    ours.close()
    _told.clear()


def _hear(signals: socket.socket) -> None:
  """Sets the notice at the first of its signals, ends the process at the second; others pass."""
  first = None
  while numbers := signals.recv(64):
    if not set(numbers) & set(_NOTICES):
      continue
    if first is None:
      first = time.monotonic()
      _told.set()
      with contextlib.suppress(OSError):  # the terminal may be gone
        print('told to end: the run ends after what cannot be interrupted, and is saved; another '
              'one kills it', file=sys.stderr, flush=True)
    elif time.monotonic() - first >= _SAME_NOTICE_S:
      os._exit(128 + signal.SIGTERM)
