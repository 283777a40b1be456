"""Compare the viewer of the report with NiiVue, in headless Chromium: page size and time.

Usage: python -m benchmarks.viewer REPORT.html TIME01 TIME02
REPORT is a report of `msseg predict`. TIME01 and TIME02 are the visits that it shows. They are put
into a page with the copy of NiiVue that nilearn ships, as 8-bit NIfTI files. Both pages are opened
from disk without a GPU, as on a remote desktop. Needs selenium and chromedriver.
"""

import argparse
import base64
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import nilearn
import numpy as np
from selenium import webdriver

SWAPS = 9
NIIVUE = """<canvas id="gl" width="1000" height="400"></canvas><script>{script}</script><script>
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
(async () => {{
  const viewer = new niivue.Niivue();
  await viewer.attachTo("gl");
  for (const [name, text] of [["a.nii.gz", "{first}"], ["b.nii.gz", "{second}"]]) {{
    viewer.addVolume(await niivue.NVImage.loadFromUrl({{ url: bytes(text), name }}));
  }}
  viewer.setSliceType(viewer.sliceTypeMultiplanar);
  viewer.drawScene();
  let shown = 1;
  window.swap = () => {{
    shown = 1 - shown;
    viewer.setOpacity(1, shown);
    viewer.drawScene();
    viewer.gl.finish();
  }};
}})();
</script>"""
OURS = """
if (!document.getElementById("viewer").classList.contains("ready")) return false;
window.swap = () => document.getElementById("blink").click();
return true;
"""
TIME_SWAP = "const start = performance.now(); swap(); return performance.now() - start;"


def main() -> None:
    """Print a row for each viewer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("visits", type=Path, nargs=2, metavar="VISIT")
    flags = parser.parse_args()
    driver = shutil.which("chromedriver")
    if driver is None:
        sys.exit("python -m benchmarks.viewer: chromedriver is not installed. Install it.")
    print(f"{'':>8}{'page, MB':>10}{'ready, s':>10}{'swap, ms':>10}")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "niivue.html"
        page.write_text(_niivue_page(*flags.visits), encoding="utf-8")
        for name, path, is_ready in (
            ("ours", flags.report.resolve(), OURS), ("NiiVue", page, "return Boolean(window.swap)")
        ):  # fmt: skip
            ready_s, swap_ms = _measure(driver, path, is_ready)
            megabytes = path.stat().st_size / 1e6
            print(f"{name:>8}{megabytes:>10.1f}{ready_s:>10.2f}{swap_ms:>10.1f}")


def _measure(driver: str, page: Path, is_ready: str) -> tuple[float, float]:
    """Return the time until a page shows both visits, and the median time of a swap."""
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        start_s = time.perf_counter()
        browser.get(page.as_uri())
        while not browser.execute_script(is_ready):
            time.sleep(0.02)
        ready_s = time.perf_counter() - start_s
        times_ms = [browser.execute_script(TIME_SWAP) for _ in range(SWAPS)]
    finally:
        browser.quit()
    return ready_s, statistics.median(times_ms)


def _niivue_page(*visits: Path) -> str:
    script = Path(nilearn.__file__).parent / "_assets" / "js" / "niivue.umd.js"
    first, second = map(_as_text, visits)
    return NIIVUE.format(script=script.read_text(encoding="utf-8"), first=first, second=second)


def _as_text(path: Path) -> str:
    """Return a visit as the base64 of a compressed NIfTI file with 8 bits per voxel."""
    image = nib.load(path)
    array = image.get_fdata(dtype=np.float32)
    low, high = np.percentile(array, (1, 99.8))
    grey = np.clip(255 * (array - low) / (high - low), 0, 255).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "visit.nii.gz"
        nib.save(nib.Nifti1Image(grey, image.affine), file)
        return base64.b64encode(file.read_bytes()).decode()


if __name__ == "__main__":
    main()
