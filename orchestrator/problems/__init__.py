"""Problems: files, presets and Hub data sets in, checked rows out; and the alarm for scrambled samples."""

from __future__ import annotations
