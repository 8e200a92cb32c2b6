"""Running a sweep: what is missing, who draws it, where the workers live, and what people see meanwhile."""

from __future__ import annotations
