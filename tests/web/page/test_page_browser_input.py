"""The page in a real browser: what visitors put in, and how it is answered."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from page_in_browser import HEIGHT, WIDTH, Page, in_a_browser

pytestmark = in_a_browser


def test_names_are_text_and_never_markup(page: Page, photo_file: Path) -> None:
    names = [
        "<script>window.hurt = 1</script>",
        "<img src=x onerror=window.hurt=2>",
        "${window.hurt = 3}",
        "{{constructor}} `x`",
    ]
    page.upload(photo_file)
    for name in names:
        page.type(name)
    assert [chip.text for chip in page.all("#classes .word")] == names
    page.segment()
    assert {row.get_attribute("data-name") for row in page.all(".legend tbody tr")} - {None} == set(names)
    page.after(lambda: page.row(names[0]).find_element("css selector", "button").click())
    page.type(names[1])  # twice: the message holds the name
    page.press()
    page.until(lambda: page.status()[0] == "error")
    assert "given twice" in page.status()[1]
    assert page.driver.execute_script("return window.hurt === undefined")
    assert not page.all("#classes img, #classes script, #status img, .legend img, .legend script")


def test_bad_input_is_a_line_on_the_page(page: Page, tmp_path: Path) -> None:
    def said() -> str:
        before = page.status()
        page.press()
        page.until(lambda: page.status() != before and page.status()[0] == "error")
        return page.status()[1]

    assert "expected a picture, got none" in said()
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    page.one("#picture input[type=file]").send_keys(str(tmp_path / "broken.png"))
    page.until(lambda: page.all("#picture img"))
    assert "at least one class" in said()
    page.type("dog")
    text = said()
    assert text.startswith("expected an image (JPEG")
    assert "Traceback" not in text
    assert not page.one(".legend").is_displayed()


_GIVE = """
const [kind, data] = arguments;
const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
const given = new DataTransfer();
given.items.add(new File([bytes], "photo.png", {type: "image/png"}));
const more = {bubbles: true, cancelable: true};
if (kind === "paste") {
  document.body.dispatchEvent(new ClipboardEvent("paste", {...more, clipboardData: given}));
} else {
  for (const name of ["dragenter", "dragover", "drop"]) {
    document.querySelector("#picture button").dispatchEvent(new DragEvent(name, {...more, dataTransfer: given}));
  }
}
"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: Page, photo_file: Path, kind: str) -> None:
    page.driver.execute_script(_GIVE, kind, base64.b64encode(photo_file.read_bytes()).decode())
    page.until(lambda: page.all("#picture img"))
    page.one("#classes input").send_keys("horse")  # without Enter: leaving the field is enough
    assert f"of 1 class found in {WIDTH} x {HEIGHT} pixels" in page.segment()


def test_it_fits_a_phone(page: Page, photo_file: Path) -> None:
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        page.upload(photo_file)
        page.type("horse; a class with quite a long name, longer than the page is wide, and then some more of it")
        page.segment()
        widest = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert widest <= 390
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
