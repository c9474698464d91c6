"""The page about a data folder says what `report.json` says, with everything escaped."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from conftest import words
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions


class Reader(HTMLParser):
    """Texts of all cells and list items, and the tags that were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onclick"}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_has_the_figures_and_examples_of_the_report(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.txt").write_text(words(number, 60))
    (folder / "<b>bad.txt").write_text("404: Not Found <script>alert(1)</script>")
    (folder / "soft.txt").write_text("soft\u00adhyphen " + words(50, 60))
    out = tmp_path / "out"
    prepared = prep([str(folder)], out, PrepOptions(level="char", val_fraction=0.2), num_workers=1)
    reader = Reader()
    reader.feed((out / "report.html").read_text(encoding="utf-8"))
    text = "\n".join(reader.texts)
    assert "script" not in reader.tags
    assert prepared.report["dropped"]["http_error"]["examples"][0] in text
    assert f"Kept {prepared.report['documents_kept']:,} documents" in text
    assert f"{prepared.manifest['splits']['train']['num_tokens']:,}" in text
    assert "invisible character" in text
