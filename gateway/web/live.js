// The events of who is logged in, as they happen; where the stream breaks, a look every few seconds, and honesty about which.

import { Problem, loggedIn, request } from "./api.js";

const SILENCE = 40_000; // ms without even a comment line after which the stream counts as broken
const PAUSE = 4000; // ms between looks, and before the stream is tried again
const LONG = 60_000; // ms after which a stream that ends has done its work
const ENDED = Symbol("ended");

let wake = () => {};

// Somebody has logged in: no need to wait out the pause.
export const wakeUp = () => wake();

// Calls `onEvent(event)`, with null for "something may have changed", and `onState("live" | "polling" | "off")`.
export async function follow(onEvent, onState) {
  let last = null;
  for (;;) {
    if (loggedIn()) {
      const heard = (event) => {
        last = event.id;
        onEvent(event);
      };
      const ended = await stream(last, () => onState("live"), heard).catch(
        (error) => error instanceof Problem || console.warn(error),
      );
      if (ended === ENDED) continue; // with its access token, as it should
      onState(loggedIn() ? "polling" : "off");
      if (loggedIn()) onEvent(null);
    } else {
      onState("off");
      onEvent(null);
      last = null;
    }
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, PAUSE);
    });
  }
}

async function stream(last, onOpen, onEvent) {
  const begun = Date.now();
  const silence = new AbortController();
  let watchdog = setTimeout(() => silence.abort(), SILENCE);
  try {
    const headers = last === null ? {} : { "Last-Event-ID": last };
    const response = await request("GET", "/v1/events", { headers, signal: silence.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    onOpen();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || !loggedIn()) return Date.now() - begun > LONG ? ENDED : null;
      clearTimeout(watchdog);
      watchdog = setTimeout(() => silence.abort(), SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").find((line) => line.startsWith("data:"));
        if (data) onEvent(JSON.parse(data.slice(5)));
      }
    }
  } finally {
    clearTimeout(watchdog);
    silence.abort();
  }
}
