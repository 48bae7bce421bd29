"""Where tensors of a checkpoint are read from: the protocol, and folders of safetensors."""

from collections.abc import Mapping
import json
import pathlib
from typing import Protocol

import numpy as np
import safetensors

WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
_DTYPES = ('F32', 'BF16', 'F16', 'F64')


class Source(Protocol):
  """Tensors by the names of transformers, read in parts.

  Attributes:
    path: what messages name.
    shapes: {name: shape} of all tensors.
  """

  path: pathlib.Path
  shapes: Mapping[str, tuple[int, ...]]

  def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
    """Part of a tensor; `columns` is ignored for a vector."""

  def where(self, name: str) -> pathlib.Path:
    """The file that holds a tensor."""


class SafetensorsFolder:
  """The Source that is a folder of transformers: one safetensors file, or several and an index.

  Raises:
    FileNotFoundError: the folder lacks a file.
    ValueError: a file is damaged or cut short.
  """

  def __init__(self, path: str | pathlib.Path):
    self.path = pathlib.Path(path)
    self._files = self._find()
    self.shapes = {}
    for file in sorted(set(self._files.values())):
      with _open(file) as opened:
        for name in opened.keys():
          if self._files.setdefault(name, file) == file:
            self.shapes[name] = tuple(opened.get_slice(name).get_shape())
    for name, file in self._files.items():
      if name and name not in self.shapes:
        raise ValueError(f'{file}: tensor {name!r} is missing, though {INDEX} puts it there; '
                         'fetch that file again')

  def _find(self) -> dict[str, pathlib.Path]:
    """{tensor: file}, or {'': file} for a single file."""
    index = self.path / INDEX
    if (self.path / WEIGHTS).is_file():
      return {'': self.path / WEIGHTS}
    if not index.is_file():
      raise FileNotFoundError(f'{self.path} has neither {WEIGHTS} nor {INDEX}; give the folder '
                              'of a checkpoint in safetensors format')
    try:
      names = json.loads(index.read_text(encoding='utf-8'))['weight_map']
      files = {name: self.path / file for name, file in names.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
      raise ValueError(f'{index} has no readable weight_map ({error}); fetch it again') from error
    for name, file in files.items():
      if not file.is_file():
        raise FileNotFoundError(f'{file} is missing, which {INDEX} names for tensor {name!r}; '
                                'fetch it')
    return files

  def where(self, name: str) -> pathlib.Path:
    return self._files.get(name, self._files.get('', self.path / INDEX))

  def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
    # Opened anew each time: what was mapped and read counts as memory until the file is closed.
    with _open(self.where(name)) as opened:
      part = opened.get_slice(name)
      if part.get_dtype() not in _DTYPES:
        raise ValueError(f'{self.where(name)}: tensor {name!r} is stored as {part.get_dtype()}; '
                         f'use a checkpoint in one of {_DTYPES}')
      return part[rows, columns] if len(self.shapes[name]) == 2 else part[rows]


def _open(file: pathlib.Path):
  try:
    return safetensors.safe_open(file, 'numpy')
  except (safetensors.SafetensorError, OSError) as error:
    cut = _first_cut(file)
    tensor = f', from tensor {cut!r} on' if cut else ''
    raise ValueError(
        f'{file} is cut short or damaged{tensor} ({error}); fetch it again') from error


def _first_cut(file: pathlib.Path) -> str | None:
  """The first tensor that the header promises beyond the end of the file."""
  size = file.stat().st_size
  with file.open('rb') as stream:
    header_size = int.from_bytes(stream.read(8), 'little')
    header = stream.read(min(header_size, size))
  try:
    ends = {name: entry['data_offsets'][1] for name, entry in json.loads(header).items()
            if name != '__metadata__'}
  except (ValueError, KeyError, TypeError, AttributeError):
    return None
  beyond = [name for name in sorted(ends, key=ends.get) if 8 + header_size + ends[name] > size]
  return beyond[0] if beyond else None
