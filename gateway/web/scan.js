// Reading a QR code with the camera, in browsers that can.

import { button, byId, el } from "./dom.js";
import { t } from "./language.js";

export function scanButton(onText) {
  if (!("BarcodeDetector" in window) || !navigator.mediaDevices) return null;
  return button(t("scan.start"), () => scan(onText).catch(() => {}));
}

async function scan(onText) {
  const camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  const video = el("video", { playsinline: true, muted: true });
  const dialog = el("dialog", { "aria-label": t("scan.start") }, video);
  dialog.append(
    el(
      "div",
      { class: "buttons" },
      button(t("action.back"), () => dialog.close()),
    ),
  );
  dialog.addEventListener("close", () => {
    for (const track of camera.getTracks()) track.stop();
    dialog.remove();
  });
  byId("main").append(dialog);
  dialog.showModal();
  video.srcObject = camera;
  await video.play();
  const detector = new window.BarcodeDetector({ formats: ["qr_code"] });
  while (dialog.open) {
    const [found] = await detector.detect(video);
    if (found) {
      dialog.close();
      onText(found.rawValue);
    }
    await new Promise(requestAnimationFrame);
  }
}
