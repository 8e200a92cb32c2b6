"""Views: the common questions, answered in SQL, with a comment on each view and column."""

from __future__ import annotations

from orchestrator.store.views.counts import COUNT_VIEWS
from orchestrator.store.views.samples import SAMPLE_VIEWS
from orchestrator.store.views.scores import SCORE_VIEWS
from orchestrator.store.views.steps import STEP_VIEWS
from orchestrator.store.views.view import View
from orchestrator.store.views.work import WORK_VIEWS

__all__ = ["VIEWS", "View"]

VIEWS: tuple[View, ...] = (*SAMPLE_VIEWS, *COUNT_VIEWS, *SCORE_VIEWS, *STEP_VIEWS, *WORK_VIEWS)
"""All views, each after those it is made of."""
