// SPDX-License-Identifier: Apache-2.0
// The stream of events from /v1/live, with a key if the gateway wants one; begins again by itself.
// EventSource cannot send a key, so the events are read from the response's body.
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const SILENT_MS = 4000; // an event comes every second

// on: {event(object), state(name, text), key()}
export function connect(on) {
  let tries = 0;
  let timer = 0;
  let abort = null;

  function again(text) {
    const ms = RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)];
    on.state('lost', text);
    clearTimeout(timer);
    timer = setTimeout(begin, ms);
  }

  async function read(response, alive) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      const parts = (rest + value).split('\n\n');
      rest = parts.pop();
      for (const part of parts) {
        if (part.startsWith('data: ')) on.event(JSON.parse(part.slice(6)));
      }
    }
  }

  async function begin() {
    abort = new AbortController();
    let silent = 0;
    const alive = () => {
      clearTimeout(silent);
      silent = setTimeout(() => abort.abort(), SILENT_MS);
    };
    const key = sessionStorage.getItem('weft-key');
    try {
      alive();
      const response = await fetch('/v1/live', {
        headers: key ? { authorization: `Bearer ${key}` } : {},
        cache: 'no-store', signal: abort.signal,
      });
      if (response.status === 401) {
        clearTimeout(silent);
        on.key();
        return;
      }
      if (!response.ok) {
        clearTimeout(silent);
        again(`the gateway answers with status ${response.status}`);
        return;
      }
      tries = 0;
      on.state('live', 'live');
      await read(response, alive);
      clearTimeout(silent);
      again('the stream has ended');
    } catch (error) {
      clearTimeout(silent);
      again(abort.signal.aborted ? 'the gateway is silent' : 'the gateway is not there');
    }
  }

  begin();
  return {
    useKey(key) {
      sessionStorage.setItem('weft-key', key);
      begin();
    },
  };
}

// POST as JSON; returns the answer's object or throws its sentence.
export async function ask(path, question) {
  const key = sessionStorage.getItem('weft-key');
  const response = await fetch(path, {
    method: 'POST', body: JSON.stringify(question),
    headers: { 'content-type': 'application/json',
      ...(key ? { authorization: `Bearer ${key}` } : {}) },
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error?.message ?? `status ${response.status}`);
  return answer;
}
