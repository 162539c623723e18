"""Times of frames: counted from the beginning of the exam where that is known, and from midnight where it is not."""

from __future__ import annotations

from datetime import datetime, timedelta

from molrecon.io.dicom.template import Template


def clock(template: Template | None, seconds: float) -> tuple[str, str]:
    """Return DICOM date and time, `seconds` after the study began; the date is empty where the study has none.

    Without a template, or with one whose times were removed, frames are counted from 00:00:00: readers tell them apart
    by their times.
    """
    date = "" if template is None else str(template.elements.get("StudyDate", ""))
    time = "" if template is None else str(template.elements.get("StudyTime", ""))
    try:
        begin = datetime.strptime((date or "20000101") + (time[:6] or "000000"), "%Y%m%d%H%M%S")
    except ValueError:  # a date or a time in part
        date, begin = "", datetime(2000, 1, 1)
    moment = begin + timedelta(seconds=seconds)
    return moment.strftime("%Y%m%d") if date else "", moment.strftime("%H%M%S.%f")
