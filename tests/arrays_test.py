"""arrays.py: the dataclasses are trees of their fields and frozen; trees laid over trees."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import pytest

from mem1_jax import arrays

TREES = [cls for _, cls in inspect.getmembers(arrays, dataclasses.is_dataclass)]


@pytest.mark.parametrize('cls', TREES, ids=lambda cls: cls.__name__)
def test_every_field_is_a_leaf_in_order(cls):
  fields = [field.name for field in dataclasses.fields(cls)]
  tree = cls(**{name: jnp.full((), i) for i, name in enumerate(fields)})
  assert [int(leaf) for leaf in jax.tree.leaves(tree)] == list(range(len(fields)))
  doubled = jax.jit(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree))(tree)
  assert isinstance(doubled, cls)
  assert int(getattr(doubled, fields[-1])) == 2 * (len(fields) - 1)
  with pytest.raises(dataclasses.FrozenInstanceError):
    setattr(tree, fields[0], None)


def test_overlay_adds_and_replaces_leaves_and_copies_none():
  frozen, trained = {'a': {'x': 1, 'y': 2}, 'b': 3}, {'a': {'y': 20, 'z': {'w': 4}}, 'c': 5}
  assert arrays.overlay(frozen, trained) == {
      'a': {'x': 1, 'y': 20, 'z': {'w': 4}}, 'b': 3, 'c': 5}
  assert frozen == {'a': {'x': 1, 'y': 2}, 'b': 3}
  whole = {'a': {'x': jnp.ones(2)}}
  for nothing in (None, {}, {'a': {'x': jnp.zeros(2)}}):
    assert arrays.overlay(nothing, whole)['a']['x'] is whole['a']['x']
  assert arrays.overlay(whole, {})['a']['x'] is whole['a']['x']
