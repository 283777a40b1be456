"""The report in real browsers. A browser and its driver must be installed, or a test is skipped."""

import base64
import json
import shutil
import time
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.cli.main import main
from msseg_jax.evaluation.answers import read_answers
from msseg_jax.inference.ensemble import Ensemble
from tests.support.grids import CODES, grid_of
from tests.support.runs import save_run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
ActionChains = webdriver.ActionChains
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = webdriver.Keys

pytestmark = pytest.mark.slow
PROGRAMS = {"chromium": "chromedriver", "firefox": "firefox"}
# Mean column of the pixels with the colour of the outlines of new lesions, as a share of the width.
OUTLINE_X = """
const canvas = arguments[0], context = canvas.getContext("2d");
const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
let sum = 0, count = 0;
for (let i = 0; i < data.length; i += 4) {
  if (data[i] > 200 && Math.abs(data[i + 1] - 159) < 40 && data[i + 2] < 60) {
    sum += (i / 4) % canvas.width;
    count += 1;
  }
}
return count ? sum / count / canvas.width : null;
"""


@pytest.fixture(scope="module", params=PROGRAMS)
def browser(request, tmp_path_factory):
    """Start a headless browser, which saves files into `browser.downloads`."""
    program = shutil.which(PROGRAMS[request.param])
    if program is None:  # the tests must pass on a machine without this browser
        pytest.skip(f"{PROGRAMS[request.param]} is not installed")
    downloads = tmp_path_factory.mktemp("downloads")
    if request.param == "chromium":
        options = webdriver.ChromeOptions()
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking"):
            options.add_argument(f"--{flag}")
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        started = webdriver.Chrome(options, webdriver.ChromeService(program))
    else:
        # Imported here, because only Firefox needs it.
        pytest.importorskip("marionette_driver", reason="marionette_driver is not installed")
        from tests.support.firefox import start_firefox

        preferences = {"browser.download.folderList": 2, "browser.download.dir": str(downloads)}
        started = start_firefox(program, preferences, tmp_path_factory.mktemp("profile"))
    started.downloads = downloads
    started.set_window_size(1400, 1000)
    yield started
    started.quit()


@pytest.fixture
def page_of(small_config, tmp_path, monkeypatch):
    """Return a function that writes the report of a pair in which two lesions are found."""
    small_config.predict.threshold = 0.5
    run = save_run(tmp_path / "run", small_config)
    segment = Ensemble.segment

    def write(codes="RAS", folder="pair"):
        place = tmp_path / folder
        place.mkdir()
        affine, shape = grid_of(codes, size_mm=(1.0, 1.0, 2.0), shape=(60, 70, 20))
        centre = (affine @ [*((np.array(shape) - 1) / 2), 1])[:3]
        places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        mm = places @ affine[:3, :3].T + affine[:3, 3] - centre
        brain = np.linalg.norm(mm / (25, 30, 16), axis=-1) < 1
        left = np.linalg.norm(mm - (-14, 8, 2), axis=-1) < 4
        small = np.linalg.norm(mm - (10, -8, 0), axis=-1) < 2.5
        rng = np.random.default_rng(0)
        for name, lesions in (("t1", 0), ("t2", 60)):
            image = brain * (100 + lesions * (left | small) + rng.normal(0, 4, shape))
            nib.save(nib.Nifti1Image(image.astype(np.float32), affine), place / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(brain.astype(np.uint8), affine), place / "brain.nii.gz")

        def found(*given):
            maps = np.where(left | small, 0.9, 0.0)[None].astype(np.float32)
            return replace(segment(*given), maps=maps)

        monkeypatch.setattr(Ensemble, "segment", found)
        page = place / "new.html"
        flags = ["-t1", "t1.nii.gz", "-t2", "t2.nii.gz", "--mask=brain.nii.gz", "-o", "new.nii.gz"]
        monkeypatch.chdir(place)
        assert main(["predict", f"--model={run}", *flags, f"--report={page}"]) == 0
        return page

    return write


def open_page(browser, page):
    browser.get(page.as_uri())
    wait_for(lambda: "ready" in browser.find_element(By.ID, "viewer").get_attribute("class"))


def wait_for(happened, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not (value := happened()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def press(browser, *keys):
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def said(browser):
    return browser.find_element(By.ID, "viewer-state").text


def pane_names(browser):
    shown = [pane for pane in browser.find_elements(By.CLASS_NAME, "pane") if pane.is_displayed()]
    return [pane.find_element(By.CLASS_NAME, "pane-name").text for pane in shown]


def test_the_viewer_goes_to_lesions_blinks_and_scrolls(browser, page_of):
    open_page(browser, page_of())
    assert "in P1" in said(browser)
    browser.find_element(By.CSS_SELECTOR, 'a[data-go="2"]').click()
    assert "in P2" in said(browser)
    assert browser.find_element(By.ID, "viewer-lesion").text == "P2 (2 of 2)"
    assert pane_names(browser)[0] == "second visit, axial"
    press(browser, "b")
    assert pane_names(browser)[0] == "first visit, axial"
    press(browser, "b")
    assert pane_names(browser)[0] == "second visit, axial"
    before = said(browser)
    press(browser, Keys.PAGE_UP)  # the axial plane has the focus
    up = [float(word) for word in said(browser).split("= ")[1].split(" mm")[0].split(", ")]
    at = [float(word) for word in before.split("= ")[1].split(" mm")[0].split(", ")]
    assert np.subtract(up, at).tolist() == pytest.approx([0, 0, 2])
    press(browser, Keys.ARROW_RIGHT)  # towards the patient's left
    right = [float(word) for word in said(browser).split("= ")[1].split(" mm")[0].split(", ")]
    assert np.subtract(right, up).tolist() == pytest.approx([-1, 0, 0])
    press(browser, "v")
    assert len(pane_names(browser)) == 6
    before = said(browser)
    press(browser, Keys.ARROW_LEFT)  # a plane still has the focus
    assert said(browser) != before
    press(browser, "p")
    assert "in P1" in said(browser)
    press(browser, "p")
    assert "in P2" in said(browser), "the last lesion is before the first one"


def test_from_a_place_without_a_lesion_the_keys_go_to_the_last_and_first_lesion(browser, page_of):
    open_page(browser, page_of())
    for key, lesion in (("p", "P2"), ("n", "P1")):
        browser.find_element(By.CSS_SELECTOR, 'a[data-place="0"]').click()
        press(browser, key)
        assert f"in {lesion}" in said(browser)


@pytest.mark.parametrize("codes", CODES)
def test_a_lesion_on_the_left_is_drawn_at_the_letter_l(browser, page_of, codes):
    open_page(browser, page_of(codes))
    press(browser, "x")  # without the crosshair
    for pane in browser.find_elements(By.CLASS_NAME, "pane")[:2]:  # axial and coronal
        share = browser.execute_script(OUTLINE_X, pane.find_element(By.TAG_NAME, "canvas"))
        assert share > 0.55, "the letter L is at the right edge"
    sagittal = browser.find_elements(By.CSS_SELECTOR, ".pane canvas")[2]
    assert browser.execute_script(OUTLINE_X, sagittal) < 0.45, "A is at the left edge"


def test_answers_are_saved_and_read_back(browser, page_of):
    open_page(browser, page_of())
    press(browser, "t", "n", "u")
    note = browser.find_element(By.CSS_SELECTOR, 'fieldset[data-label="2"] input[type=text]')
    note.send_keys('=t "vessel", perhaps')  # in a text field, letters are no commands
    browser.find_element(By.CSS_SELECTOR, 'fieldset[data-label="2"] input[value="false"]').click()
    browser.find_element(By.ID, "save-answers").click()
    file = browser.downloads / "new_answers.csv"
    wait_for(lambda: file.is_file() and file.stat().st_size > 0)
    answers = read_answers(file)
    assert "\"'=t" in file.read_text(), "a spreadsheet must not run it"
    file.unlink()
    assert answers["answer"].tolist() == ["true", "false"]
    assert answers["note"].tolist() == ["", '=t "vessel", perhaps']
    assert answers["label"].tolist() == [1, 2]


def test_an_answer_is_for_the_lesion_that_is_named(browser, page_of):
    open_page(browser, page_of())

    def answers():
        fields = browser.find_elements(By.CSS_SELECTOR, "fieldset[data-label]")
        checked = [field.find_elements(By.CSS_SELECTOR, "input:checked") for field in fields]
        return [one[0].get_attribute("value") if one else "" for one in checked]

    radio = browser.find_element(By.CSS_SELECTOR, 'fieldset[data-label="2"] input[value="true"]')
    radio.click()
    press(browser, "f")  # the focus is at the second lesion
    assert answers() == ["", "false"]
    browser.find_element(By.CSS_SELECTOR, 'a[data-place="0"]').click()
    press(browser, "u")  # this place is no lesion
    assert answers() == ["", "false"]
    browser.find_element(By.CSS_SELECTOR, 'a[data-go="1"]').click()
    press(browser, "u")
    assert answers() == ["unsure", "false"]
    browser.execute_script("window.onbeforeunload = null")


def test_keys_work_after_a_slider_was_moved_and_a_drag_stays_in_place(browser, page_of):
    open_page(browser, page_of())
    slider = browser.find_element(By.ID, "window-low")
    slider.click()
    press(browser, "b")
    assert pane_names(browser)[0] == "first visit, axial"
    for _ in range(3):
        press(browser, "+")
    canvas = browser.find_elements(By.CSS_SELECTOR, ".pane canvas")[0]
    drag = ActionChains(browser).move_to_element_with_offset(canvas, 60, 40).click_and_hold()
    drag.perform()
    before = said(browser)
    for step in (1, -1, 1, -1):  # back to the same place
        ActionChains(browser).move_by_offset(step, 0).perform()
    assert said(browser) == before
    ActionChains(browser).release().perform()


def test_a_hostile_name_does_not_break_the_page(browser, page_of):
    open_page(browser, page_of(folder="<!--<script>alert(1)"))
    assert "in P1" in said(browser)
    assert len(browser.find_elements(By.CSS_SELECTOR, "article.lesion")) > 2


def test_nothing_is_loaded_from_elsewhere_and_nothing_fails(browser, page_of):
    if browser.name != "chrome":
        pytest.skip("only Chromium logs its requests here")
    browser.get_log("performance")
    open_page(browser, page_of())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert any(url.startswith("file:") for url in urls)
    assert all(url.startswith(("file:", "data:", "blob:")) for url in urls)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_nothing_is_cut_off_on_a_narrow_screen_or_on_paper(browser, page_of):
    open_page(browser, page_of())
    browser.set_window_size(420, 900)
    try:
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= browser.execute_script("return window.innerWidth")
        assert base64.b64decode(browser.print_page()).startswith(b"%PDF")
    finally:
        browser.set_window_size(1400, 1000)
    if browser.name == "chrome":  # lay the page out as on A4 paper with margins of 1 cm
        size = {"width": 718, "height": 1047, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        try:
            width = browser.execute_script(
                "return Math.max(...[...document.querySelectorAll('body *')]"
                ".map((one) => one.getBoundingClientRect().right))"
            )
        finally:
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert width <= 718
