"""Run folders on a disk or in a bucket (gs://…, s3://…): what differs between the two.

An object in a bucket is whole or not there, and cannot be appended to or renamed; a file can be cut
short. Paths here are pathlib's, paths there etils', which offer the same methods.
"""

import contextlib
import importlib
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator

from etils import epath

Path = pathlib.Path | epath.Path
# By which etils reads, if not by TensorFlow, and what else Orbax needs to (gcsfs brings it).
_PACKAGES = {'gs': ('gcsfs', 'google.cloud.storage'), 's3': ('s3fs',)}


def path(name: str | os.PathLike) -> Path:
  """Where that is; `name` is a path or a URL.

  Raises:
    ValueError: a URL that is no bucket's.
    ImportError: a package is missing that reads such buckets.
  """
  name = os.fspath(name)
  scheme, separator, _ = name.partition('://')
  if not separator:
    return pathlib.Path(name)
  if scheme not in _PACKAGES:
    known = ', '.join(f'{known}://' for known in _PACKAGES)
    raise ValueError(f'{name}: {scheme}:// is no place for a run; give a folder of this machine, or '
                     f'one of {known}')
  found, (package, *others) = epath.Path(name), _PACKAGES[scheme]
  try:
    found.exists()
    for other in others:
      importlib.import_module(other)
  except ImportError as error:
    raise ImportError(f'{name} cannot be reached without the package {package} ({error}); pip '
                      f'install {package}') from error
  return found


def local(name: str) -> pathlib.Path:
  """A path of this machine.

  Raises:
    ValueError: a URL.
  """
  if '://' in name:
    raise ValueError(f'{name} is in a bucket; give a folder of this machine')
  return pathlib.Path(name)


def is_remote(where: Path) -> bool:
  """Whether it is in a bucket."""
  return '://' in os.fspath(where)


def absolute(where: Path) -> Path:
  """The same, whatever the working directory."""
  return where if is_remote(where) else where.absolute()


def write_whole(where: Path, text: str) -> None:
  """Writes a file that is whole or not there, whenever the process is killed."""
  if is_remote(where):
    where.write_text(text)
    return
  new = where.with_name(f'{where.name}.tmp')
  new.write_text(text)
  new.replace(where)


class Lines:
  """Appends to a file of lines, each there once `add` returns.

  In a bucket that takes the whole file again, so the lines are kept here as well.

  Args:
    where: the file.
    every_s: in a bucket, seconds between two writes at least, where `close` writes the rest: for
      long files.
  """

  def __init__(self, where: Path, every_s: float = 0.0):
    self._where, self._file, self._text = where, None, ''
    self._every_s, self._written_at, self._is_written = every_s, -math.inf, True
    if not is_remote(where):
      self._file = where.open('a')
    elif where.exists():
      self._text = where.read_text()

  def add(self, line: str) -> None:
    if self._file is None:
      self._text += line + '\n'
      self._is_written = False
      if time.monotonic() - self._written_at >= self._every_s:
        self._write()
      return
    self._file.write(line + '\n')
    self._file.flush()

  def _write(self) -> None:
    self._where.write_text(self._text)
    self._written_at, self._is_written = time.monotonic(), True

  def close(self) -> None:
    if self._file is not None:
      self._file.close()
    elif not self._is_written:
      self._write()


class Staged:
  """A folder for libraries that write to disks alone.

  Attributes:
    folder: where they write: the folder itself, or one of this machine for one in a bucket.
  """

  def __init__(self, where: Path):
    self._where, self._temporary = where, None
    self.folder = where
    if is_remote(where):
      self._temporary = tempfile.TemporaryDirectory()
      self.folder = pathlib.Path(self._temporary.name)

  def send(self) -> None:
    """Brings to the bucket what is there now."""
    for file in sorted(self.folder.rglob('*')) if self._temporary else ():
      if file.is_file():
        there = self._where / file.relative_to(self.folder).as_posix()
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(file.read_bytes())

  def close(self) -> None:
    """The same, for the last time."""
    self.send()
    if self._temporary:
      self._temporary.cleanup()


@contextlib.contextmanager
def staged(where: Path) -> Iterator[pathlib.Path]:
  """A folder of this machine, in the bucket too in the end."""
  with contextlib.closing(Staged(where)) as found:
    yield found.folder
