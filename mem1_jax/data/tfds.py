"""tensorflow-datasets by name, and a builder of our own that makes such data sets of questions.

    prepare('hotpot', {'train': questions, 'test': others}, folder)     TFRecord files, once
    rows('local_questions/hotpot:train', folder)                        and everywhere read

TensorFlow and tensorflow-datasets are imported when something is read or prepared.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import os
from typing import Any

import numpy as np

from mem1_jax.data.rows import Row
from mem1_jax.types import Question

BUILDER = 'local_questions'
_LISTS = ('golden_answers', 'chain', 'found', 'relations')


def import_tensorflow() -> Any:
  """TensorFlow without banners between progress lines, and without the accelerator, jax's own.

  Raises:
    ImportError: it is not installed.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # said whatever the level; nothing here needs it
  import tensorflow
  tensorflow.config.set_visible_devices([], 'GPU')
  return tensorflow


def _library() -> Any:
  try:
    import_tensorflow()
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise ImportError('tensorflow-datasets is not installed here: pip install "mem1_jax[tf]", or '
                      'read the data set from its own files') from error
  return tfds


def rows(name: str, data_dir: str | None = None) -> Iterator[Row]:
  """The examples of `NAME:SPLIT` or `NAME/CONFIG:SPLIT` as records, for `rows.gather`.

  Args:
    name: of a data set, and of its split or a slice such as `train[:1000]`.
    data_dir: where it is prepared, or will be; None: TFDS_DATA_DIR, or tfds's own folder.

  Raises:
    ImportError: TensorFlow or tensorflow-datasets is not installed.
    ValueError: there is no split, or tfds cannot find or prepare it.
  """
  dataset, _, split = name.partition(':')
  if not dataset or not split:
    raise ValueError(f'tfds:{name} has no split; write tfds:NAME:SPLIT or tfds:NAME/CONFIG:SPLIT')
  tfds = _library()
  try:
    loaded = tfds.load(dataset, split=split, data_dir=data_dir)
  except Exception as error:  # tfds has many: not found, no such split, no network
    raise ValueError(f'tfds:{name} cannot be loaded from {data_dir or "the default folder"}: '
                     f'{type(error).__name__}: {str(error)[:500]}') from error
  return _records(tfds.as_numpy(loaded))


def _records(examples: Any) -> Iterator[Row]:
  for number, example in enumerate(examples, 1):
    try:
      yield number, _plain(example)
    except UnicodeDecodeError as error:
      yield number, ValueError(f'not UTF-8: {error}')


def _plain(value: Any) -> Any:
  """Bytes → text, arrays → lists, NumPy's numbers → Python's."""
  if isinstance(value, dict):
    return {name: _plain(item) for name, item in value.items()}
  if isinstance(value, bytes):
    return value.decode()
  if hasattr(value, 'tolist'):
    return _plain(value.tolist())
  if isinstance(value, list):
    return [_plain(item) for item in value]
  return value


def prepare(name: str, splits: Mapping[str, Sequence[Question]], data_dir: str | os.PathLike
            ) -> str:
  """Writes questions as a data set of tensorflow-datasets; returns `local_questions/NAME`.

  Args:
    name: of the data set's configuration: letters, digits and underscores.
    splits: questions of each split, one at least, ids different.
    data_dir: the folder; what is there under this name is kept.

  Raises:
    ImportError: TensorFlow or tensorflow-datasets is not installed.
    ValueError: no name of that form, no splits, or an empty one.
  """
  if not name.replace('_', '').isalnum():
    raise ValueError(f'name {name!r} of a data set must be of letters, digits and underscores')
  if not splits or not all(splits.values()):
    raise ValueError(f'splits {[f"{k}: {len(v)}" for k, v in splits.items()]} must hold questions')
  make = _builder(_library())
  make(data_dir=str(data_dir), config=name, splits=splits).download_and_prepare()
  return f'{BUILDER}/{name}'


@functools.cache
def _builder(tfds: Any) -> type:
  """The builder's class, which can only be made where tfds is.

  It is not registered: whoever reads what it wrote needs the files alone.
  """

  class LocalQuestions(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Questions that are already here; see `prepare`."""

    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, *, config: str, splits: Mapping[str, Sequence[Question]], **kwargs):
      self._questions = splits
      super().__init__(config=tfds.core.BuilderConfig(name=config, version=self.VERSION), **kwargs)

    def _info(self):
      text = tfds.features.Text()
      lists = {field: tfds.features.Sequence(tfds.features.Text()) for field in _LISTS}
      return tfds.core.DatasetInfo(
          builder=self, disable_shuffling=True,  # the order is the questions' own
          features=tfds.features.FeaturesDict(
              {'id': text, 'question': text, 'hops': np.int32} | lists))

    def _split_generators(self, dl_manager):
      del dl_manager
      return {split: map(_example, questions) for split, questions in self._questions.items()}

    def _generate_examples(self):
      raise NotImplementedError('splits are made of questions, see `_split_generators`')

  return LocalQuestions


def _example(question: Question) -> tuple[str, dict]:
  lists = (question.answers, question.chain, question.found, question.relations)
  return question.id, {'id': question.id, 'question': question.text, 'hops': question.hops} | {
      name: list(values) for name, values in zip(_LISTS, lists)}
