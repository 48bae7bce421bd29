"""Headless Chromium for tests, over its debugging pipe: no driver, no package, no port."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_KEYS = {'ArrowRight': 39, 'ArrowLeft': 37, 'Escape': 27, 'Enter': 13}


def find() -> str | None:
  """The path of an installed Chromium; None without one."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """One tab. What goes wrong in the page is in `errors`, what it asks for in `requests`."""

  def __init__(self, path: str, profile: str):
    # Above 10, so that making them 3 and 4 in the child overwrites none of them.
    (ours_in, theirs_out), (theirs_in, ours_out) = (
        tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in os.pipe()) for _ in range(2))
    self.errors, self.requests = [], []
    self._in, self._out, self._buffer, self._id = ours_in, ours_out, b'', 0

    def child():
      os.dup2(theirs_in, 3)
      os.dup2(theirs_out, 4)

    self._process = subprocess.Popen(
        [path, '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
         '--no-first-run', '--disable-background-networking', '--disable-component-update',
         f'--user-data-dir={profile}', '--remote-debugging-pipe', 'about:blank'],
        preexec_fn=child, pass_fds=(3, 4), start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(theirs_in)
    os.close(theirs_out)
    self._session = None
    target = self._ask('Target.createTarget', url='about:blank')['targetId']
    self._session = self._ask('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self._ask(f'{domain}.enable')
    self.resize(1280, 900)

  def close(self):
    os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()
    os.close(self._in)
    os.close(self._out)

  def _message(self, deadline: float) -> dict:
    while b'\0' not in self._buffer:
      if not select.select([self._in], [], [], max(0, deadline - time.monotonic()))[0]:
        raise TimeoutError('Chromium does not answer')
      chunk = os.read(self._in, 1 << 20)
      if not chunk:
        raise ConnectionError('Chromium has ended')
      self._buffer += chunk
    text, _, self._buffer = self._buffer.partition(b'\0')
    return json.loads(text)

  def _ask(self, method: str, timeout_s: float = 60, **params) -> dict:
    self._id += 1
    asked = {'id': self._id, 'method': method, 'params': params}
    if self._session:
      asked['sessionId'] = self._session
    os.write(self._out, json.dumps(asked).encode() + b'\0')
    deadline = time.monotonic() + timeout_s
    while True:
      found = self._message(deadline)
      if found.get('id') == self._id:
        if 'error' in found:
          raise RuntimeError(f'{method}: {found["error"]}')
        return found['result']
      self._hear(found.get('method'), found.get('params', {}))

  def _hear(self, method: str | None, params: dict):
    if method == 'Runtime.exceptionThrown':
      self.errors.append(json.dumps(params['exceptionDetails']))
    elif method == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'warning'):
      self.errors.append(json.dumps(params['args']))
    elif method == 'Log.entryAdded' and params['entry']['level'] in ('error', 'warning'):
      self.errors.append(params['entry']['text'])
    elif method == 'Network.requestWillBeSent':
      self.requests.append(params['request']['url'])

  def resize(self, width: int, height: int, is_phone: bool = False, scale: float = 1):
    self._ask('Emulation.setDeviceMetricsOverride', width=width, height=height,
              deviceScaleFactor=scale, mobile=is_phone)

  def scheme(self, name: str):
    self._ask('Emulation.setEmulatedMedia',
              features=[{'name': 'prefers-color-scheme', 'value': name}])

  def open(self, url: str, timeout_s: float = 60) -> float:
    """Goes to a page and waits until its script says that it is ready; returns the seconds."""
    self._ask('Page.navigate', url='about:blank')
    begun = time.monotonic()
    self._ask('Page.navigate', url=url)
    while not self.run("location.href !== 'about:blank' && document.documentElement?.dataset.ready "
                       "=== 'yes'"):
      if time.monotonic() - begun > timeout_s:
        raise TimeoutError(f'{url} is not ready; {self.errors}')
      time.sleep(0.01)
    # Laid out and painted, too.
    self.run('new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')
    return time.monotonic() - begun

  def run(self, script: str):
    """The value of a JavaScript expression, awaited."""
    found = self._ask('Runtime.evaluate', expression=script, returnByValue=True,
                      awaitPromise=True)
    if 'exceptionDetails' in found:
      raise RuntimeError(json.dumps(found['exceptionDetails']))
    return found['result'].get('value')

  def press(self, key: str):
    text = {'text': key} if len(key) == 1 else {}
    code = _KEYS.get(key, ord(key[0].upper()))
    for kind in ('keyDown', 'keyUp'):
      self._ask('Input.dispatchKeyEvent', type=kind, key=key, windowsVirtualKeyCode=code,
                **(text if kind == 'keyDown' else {}))

  def screenshot(self) -> bytes:
    return base64.b64decode(self._ask('Page.captureScreenshot', format='png')['data'])
