"""A sweep's folder without training: statuses, metrics and trajectories made up."""

import json
import pathlib

from mem1_jax import configs
from mem1_jax.sweep import folder
from mem1_jax.sweep.folder import folder_of
from mem1_jax.sweep.points import Point
from tests.report import synthetic


def define(workdir: pathlib.Path, points: tuple[Point, ...], commands=('train', 'evaluate'),
           name: str = 'mine'):
  folder.define(workdir, points, commands, configs.load('base', []), name)


def write_ppo(run: pathlib.Path, rewards, error: float = 0.1):
  run.mkdir(parents=True)
  (run / 'metrics.jsonl').write_text(''.join(
      json.dumps({'step': i + 1, 'reward': reward, 'reward_error': error}) + '\n'
      for i, reward in enumerate(rewards)))


def write_sft(run: pathlib.Path, losses):
  run.mkdir(parents=True)
  (run / 'metrics.jsonl').write_text(''.join(
      json.dumps({'step': i + 1, 'loss': loss}) + '\n' for i, loss in enumerate(losses)))


def write_point(workdir: pathlib.Path, point: Point, rewards=(0.0, 0.5, 1.0, 1.5), seed: int = 0,
                state: str = 'done', sizes=(1, 2)):
  place = folder_of(workdir, point)
  write_ppo(place / 'train', rewards)
  for n in sizes:
    synthetic.write_cell(place / 'evaluate', 'mem1', synthetic.trajectories(12, n, seed=seed + n))
  folder.write_status(workdir, point, folder.Status(state, ('train',), 90.0, 1, 0))
