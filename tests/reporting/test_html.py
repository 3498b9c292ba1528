from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from reporting_cases import make_case

from reporting.draft import draft_report
from reporting.html import render_narrative, render_page
from reporting.safety import BANNER

ANALYSIS = make_case().analysis
REPORT = draft_report([ANALYSIS])


def test_the_banner_comes_first():
    page = render_page(REPORT, "MR HEAD")
    assert page.index(BANNER) < page.index("Findings")
    assert "<title>MR HEAD</title>" in page


@given(st.text())
def test_a_hostile_study_description_stays_text(description):
    page = render_page(REPORT, f"<script>{description}</script>")
    assert "<script" not in page
    ET.fromstring(page.removeprefix("<!DOCTYPE html>").replace('<meta charset="utf-8">', ""))


@given(st.text())
def test_the_narrative_is_well_formed_whatever_a_card_says(note):
    report = draft_report([replace(ANALYSIS, notes=(f"<img src=x onerror=alert(1)>{note}",))])
    root = ET.fromstring(render_narrative(report))
    assert root.tag == "{http://www.w3.org/1999/xhtml}div"
    assert not [element for element in root.iter() if element.tag.endswith("img")]
