// The live connection: pictures of the network as they come, and honesty about whether they do.

const SILENCE = 6000; // ms without a message after which the connection counts as lost
const PAUSE = 2000; // ms before a refused connection is tried again

// Calls `onPicture(kind, picture)` with kind "snapshot" or "update", and `onState("live" | "lost")`.
export function follow(url, onPicture, onState) {
  let source;
  let watchdog;

  const lost = () => {
    source.close();
    clearTimeout(watchdog);
    onState("lost");
    watchdog = setTimeout(open, PAUSE);
  };

  const heard = (event) => {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, SILENCE);
    onPicture(event.type, JSON.parse(event.data));
    onState("live");
  };

  const open = () => {
    source = new EventSource(url);
    source.addEventListener("snapshot", heard);
    source.addEventListener("update", heard);
    source.onerror = lost;
    watchdog = setTimeout(lost, SILENCE);
  };

  open();
}
