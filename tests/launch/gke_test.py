"""launch/gke: the manifest against Kubernetes' and JobSet's schemas, and what kubectl is told."""

import copy
import json
import os
import subprocess

import pytest

from tests.launch import stubs
from tests.launch.stubs import ROOT

SCHEMA = json.loads((ROOT / 'tests' / 'launch' / 'jobset_schema.json').read_text())
ENV = {'GKE_IMAGE': 'europe-docker.pkg.dev/p/r/mem1:tpu', 'BUCKET': 'gs://b'}
TRAIN = ('train', '--config=web')
KUBECTL = """#!/bin/bash
echo "kubectl $*" >> "$CLOUD_LOG"
case "$1" in
  get) cat "$CLOUD_LOG.state" 2>/dev/null; exit 0 ;;
  apply) cat > "$CLOUD_LOG.manifest" ;;
esac
"""


class Cluster:

  def __init__(self, tmp_path):
    self.path, self.checkout = tmp_path, stubs.copy_checkout(tmp_path / 'checkout')
    (tmp_path / 'bin').mkdir()
    stubs.put(tmp_path / 'bin' / 'kubectl', KUBECTL)

  def run(self, script, *args, stdin='', **env):
    env = {'PATH': f'{self.path}/bin:{os.environ["PATH"]}', 'CLOUD_LOG': f'{self.path}/log',
           **ENV, **env}
    return subprocess.run(['bash', f'launch/gke/{script}.sh', *args], cwd=self.checkout, env=env,
                          input=stdin, capture_output=True, text=True, check=False, timeout=30)

  def logged(self):
    path = self.path / 'log'
    return path.read_text().splitlines() if path.exists() else []

  def manifest(self, *args, **env):
    yaml = pytest.importorskip('yaml')
    done = self.run('run', *(args or TRAIN), DRY_RUN='1', **env)
    assert done.returncode == 0, done.stderr
    text, _, command = done.stdout.rpartition('+ ')
    assert command == 'kubectl apply --namespace=default -f -\n'
    assert '${' not in text.split('args:')[0] + text.split('securityContext', 1)[1]
    return yaml.safe_load(text)


@pytest.fixture
def cluster(tmp_path):
  return Cluster(tmp_path)


def check(manifest):
  """Raises an error of validation."""
  jsonschema = pytest.importorskip('jsonschema')
  kubernetes_validate = pytest.importorskip('kubernetes_validate')
  jsonschema.validate(manifest, SCHEMA)
  for job in manifest['spec']['replicatedJobs']:
    kubernetes_validate.validate(
        {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': job['name']},
         **job['template']}, '1.31', strict=True)


def pod_of(manifest):
  (job,) = manifest['spec']['replicatedJobs']
  return job['template']['spec'], job['template']['spec']['template']['spec']


@pytest.mark.parametrize('env', [
    {}, {'GKE_CAPACITY': 'on-demand', 'RESUME': '1'},
    {'RETRIEVER': 'each', 'RETRIEVER_ARGS': '--documents "a & b\\c.jsonl"'}])
def test_the_manifest_is_valid(cluster, env):
  check(cluster.manifest(**env))


def test_what_is_wrong_is_found(cluster):
  good = cluster.manifest()
  check(good)
  for change in (
      lambda m: m['spec']['failurePolicy'].update(maxRestart=1),
      lambda m: m['spec']['failurePolicy']['rules'][0].update(action='Restart'),
      lambda m: pod_of(m)[0].update(backofLimit=0),
      lambda m: pod_of(m)[1]['containers'][0].update(arguments=[]),
      lambda m: pod_of(m)[0]['podFailurePolicy']['rules'][0]['onExitCodes'].update(values='75')):
    bad = copy.deepcopy(good)
    change(bad)
    with pytest.raises(Exception, match='.'):
      check(bad)


def test_the_manifest_says_what_env_says(cluster):
  manifest = cluster.manifest(RUN_NAME='long-run', GKE_TOPOLOGY='4x4', GKE_MAX_RESTARTS='2',
                              GKE_ACCELERATOR='tpu-v6e-slice')
  job, pod = pod_of(manifest)
  (container,) = pod['containers']
  assert manifest['metadata']['name'] == 'long-run'
  assert job['completions'] == job['parallelism'] == 4
  assert pod['nodeSelector'] == {
      'cloud.google.com/gke-tpu-accelerator': 'tpu-v6e-slice',
      'cloud.google.com/gke-tpu-topology': '4x4', 'cloud.google.com/gke-spot': 'true'}
  assert container['resources'] == {'limits': {'google.com/tpu': 4}}
  assert container['args'] == [
      'gs://b/runs/long-run', '--', 'python', '-m', 'mem1_jax.main', 'train', '--distributed',
      '--workdir=gs://b/runs/long-run', '--config=web']
  values = {e['name']: e.get('value') for e in container['env']}
  assert values['JAX_COORDINATOR_ADDRESS'] == 'long-run-worker-0-0.long-run:8476'
  assert values['JAX_NUM_PROCESSES'] == '4'
  assert 'cloud.google.com/gke-spot' not in pod_of(
      cluster.manifest(GKE_CAPACITY='on-demand'))[1]['nodeSelector']


def test_saved_runs_start_again_without_being_counted_and_others_are_counted(cluster):
  manifest = cluster.manifest()
  job, _ = pod_of(manifest)
  assert job['backoffLimit'] == 0
  saved, taken = job['podFailurePolicy']['rules']
  assert (saved['action'], saved['onExitCodes']['values']) == ('FailJob', [75])
  assert (taken['action'], taken['onPodConditions'][0]['type']) == ('FailJob', 'DisruptionTarget')
  policy = manifest['spec']['failurePolicy']
  assert policy['maxRestarts'] == 5
  assert policy['rules'] == [
      {'name': 'savedOrTakenAway', 'action': 'RestartJobSetAndIgnoreMaxRestarts',
       'onJobFailureReasons': ['PodFailurePolicy']}]


def test_arguments_come_as_they_are(cluster):
  odd = ['--config.data.fields=a="b"\\c', '--config.notes=x & ${NAME} $(y)', "--it's"]
  _, pod = pod_of(cluster.manifest('train', *odd))
  assert pod['containers'][0]['args'][-3:] == odd


def test_a_run_is_started_once(cluster):
  done = cluster.run('run', *TRAIN, GKE_CLUSTER='gke_p_z_c')
  assert done.returncode == 0, done.stderr
  flags = '--namespace=default --context=gke_p_z_c'
  assert cluster.logged() == [
      f'kubectl get {flags} jobset ppo --ignore-not-found '
      '-o jsonpath={.metadata.name} {.status.terminalState}',
      f'kubectl apply {flags} -f -']
  assert 'kind: JobSet' in (cluster.path / 'log.manifest').read_text()
  (cluster.path / 'log.state').write_text('ppo ')
  again = cluster.run('run', *TRAIN)
  assert (again.returncode, 'ppo is under way' in again.stderr) == (1, True)
  (cluster.path / 'log.state').write_text('ppo Failed')
  assert cluster.run('run', *TRAIN).returncode == 0
  assert [line.split()[1] for line in cluster.logged()[3:]] == ['get', 'delete', 'apply']


@pytest.mark.parametrize(('args', 'env', 'message'), [
    (('tasks',), {}, 'tasks is not what a slice can run'),
    (('train', '--workdir=x'), {}, 'the run folder is WORKDIR'),
    (TRAIN, {'GKE_IMAGE': ''}, 'GKE_IMAGE is empty'),
    (TRAIN, {'BUCKET': ''}, 'WORKDIR=runs/ppo is lost with the pods'),
    (TRAIN, {'RUN_NAME': 'Run_1'}, 'RUN_NAME=Run_1 cannot name a JobSet'),
    (TRAIN, {'GKE_TOPOLOGY': '8'}, 'GKE_TOPOLOGY=8 is no shape'),
    (TRAIN, {'GKE_CAPACITY': 'cheap'}, 'neither spot nor on-demand'),
    (('train', 'a\nb'), {}, 'a value has a line break')])  # fmt: skip
def test_what_cannot_run_is_refused(cluster, args, env, message):
  done = cluster.run('run', *args, **env)
  assert (done.returncode, message in done.stderr) == (1, True), done.stderr
  assert not cluster.logged()


def test_status_and_logs(cluster):
  assert cluster.run('status', 'job').returncode == 0
  assert cluster.run('logs', '3', '-f').returncode == 0
  assert cluster.run('logs', 'all').returncode == 0
  pods = '--selector=jobset.sigs.k8s.io/jobset-name=ppo'
  assert cluster.logged() == [
      'kubectl get --namespace=default jobset ppo',
      f'kubectl get --namespace=default pods {pods} -o wide',
      f'kubectl logs --namespace=default {pods},batch.kubernetes.io/job-completion-index=3 '
      '--tail=50 -f',
      f'kubectl logs --namespace=default {pods} --prefix --tail=50 --max-log-requests=100']


@pytest.mark.parametrize(('args', 'typed', 'is_deleted'), [
    (('job',), 'ppo\n', True), (('job',), 'yes\n', False), (('job',), '', False),
    (('job', '--yes'), '', True)])
def test_delete_asks_for_the_name(cluster, args, typed, is_deleted):
  done = cluster.run('delete', *args, stdin=typed)
  assert done.returncode == (0 if is_deleted else 1)
  assert cluster.logged() == (
      ['kubectl delete --namespace=default jobset ppo --ignore-not-found'] if is_deleted else [])


@pytest.mark.parametrize('script', ['run', 'status', 'logs', 'delete'])
def test_without_arguments_the_usage_is_shown(cluster, script):
  done = cluster.run(script)
  assert (done.returncode, f'bash launch/gke/{script}.sh' in done.stderr) == (2, True)
  assert not cluster.logged()
