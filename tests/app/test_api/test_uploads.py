"""Uploads whose import never came about are removed, and no others."""

import os
import time

from app.settings import Settings
from tests.app.test_api.support import served


def test_a_start_removes_uploads_that_no_job_can_name_any_more(tmp_path):
    settings = Settings(data_dir=tmp_path)
    settings.uploads.mkdir()
    old, young = settings.uploads / "old", settings.uploads / "young"
    for path, age_s in ((old, settings.job_ttl_s + 60), (young, settings.job_ttl_s - 600)):
        path.write_bytes(b"{}")
        os.utime(path, (time.time() - age_s,) * 2)
    with served(settings):
        assert [path.name for path in settings.uploads.iterdir()] == ["young"]
