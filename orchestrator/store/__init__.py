"""The store: sweeps, tasks, samples, grades and results in SQLite or PostgreSQL.

The database is the only truth.
"""

from __future__ import annotations

from orchestrator.store.errors import QueryRefused, StoreError, StoreRefused, StoreUnavailable, WriterFailed
from orchestrator.store.location import database_exists
from orchestrator.store.migrate import check, upgrade
from orchestrator.store.records import (
    Agreement,
    AnswerRecord,
    EstimateRecord,
    GeneratorRecord,
    GoldToVerify,
    GradeRecord,
    LabelledSolution,
    LaneRecord,
    NewTask,
    NodeRecord,
    OpenRun,
    PoolContent,
    PoolSamples,
    PoolWanted,
    ProblemRecord,
    ProcedureRecord,
    Progress,
    QueryResult,
    ResultRecord,
    RolloutDemand,
    ScorerRecord,
    Scoring,
    SearchCost,
    SelectorRecord,
    SweepPool,
    SweepRecord,
    TaskSpan,
    UngradedAnswer,
    WriteReceipt,
)
from orchestrator.store.schema import LEASE_S, GoldStatus, TaskState
from orchestrator.store.store import Store
from orchestrator.store.writer import Writer, WriterLimits, WriterStats

__all__ = [
    "LEASE_S",
    "Agreement",
    "AnswerRecord",
    "EstimateRecord",
    "GeneratorRecord",
    "GoldStatus",
    "GoldToVerify",
    "GradeRecord",
    "LabelledSolution",
    "LaneRecord",
    "NewTask",
    "NodeRecord",
    "OpenRun",
    "PoolContent",
    "PoolSamples",
    "PoolWanted",
    "ProblemRecord",
    "ProcedureRecord",
    "Progress",
    "QueryRefused",
    "QueryResult",
    "ResultRecord",
    "RolloutDemand",
    "ScorerRecord",
    "Scoring",
    "SearchCost",
    "SelectorRecord",
    "Store",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "SweepPool",
    "SweepRecord",
    "TaskSpan",
    "TaskState",
    "UngradedAnswer",
    "WriteReceipt",
    "Writer",
    "WriterFailed",
    "WriterLimits",
    "WriterStats",
    "check",
    "database_exists",
    "upgrade",
]
