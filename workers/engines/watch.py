"""When a server is up, when it is given up, and when the next one starts. Pure: the caller says what time it is.

starting --answers--> up --silent--> ailing --answers--> up
starting, ailing --for too long--> (killed)
any --ends--> backing off --pause--> starting;   --once too often--> failed
"""

from __future__ import annotations

from workers.engines.records import SERVING, EngineSettings, Phase

FIRST_POLL_S = 0.25
SLOWEST_START_POLL_S = 1.0


class Watch:
    """The life of one engine, server after server."""

    def __init__(self, settings: EngineSettings) -> None:
        self.phase = Phase.STARTING
        self.deaths = 0
        """Servers that ended since one was up for long."""
        self._settings = settings
        self._started_at = 0.0
        self._up_since: float | None = None
        self._heard_at = 0.0

    def on_start(self, now: float) -> None:
        """A server was started."""
        self.phase = Phase.STARTING
        self._started_at = now
        self._up_since = None

    def on_answer(self, now: float) -> bool:
        """The server is well; True if this is its first good answer."""
        is_first = self._up_since is None
        if is_first:
            self._up_since = now
        self._heard_at = now
        self.phase = Phase.UP
        return is_first

    def on_silence(self) -> bool:
        """The server did not answer, or said that it is not well; True if that is news of one that was up."""
        if self.phase is not Phase.UP:
            return False
        self.phase = Phase.AILING
        return True

    def overdue(self, now: float) -> str | None:
        """Why the server has to be killed; None while there is hope."""
        settings = self._settings
        if self.phase is Phase.STARTING and now - self._started_at >= settings.start_timeout_s:
            return f"it did not answer within {settings.start_timeout_s:g} s of its start"
        if self.phase is Phase.AILING and now - self._heard_at >= settings.hang_timeout_s:
            return f"its health went unanswered for {settings.hang_timeout_s:g} s"
        return None

    def on_end(self, now: float) -> float | None:
        """The server is gone; seconds until the next one starts, None if there is none."""
        settings = self._settings
        has_settled = self._up_since is not None and now - self._up_since >= settings.settle_s
        self.deaths = 1 if has_settled else self.deaths + 1
        if self.deaths > settings.max_restarts:
            self.phase = Phase.FAILED
            return None
        self.phase = Phase.BACKING_OFF
        return min(settings.backoff_cap_s, settings.backoff_base_s * 2.0 ** min(self.deaths - 1, 62))

    def on_stop(self) -> None:
        """It was told to stop."""
        self.phase = Phase.STOPPED

    def poll_s(self, now: float) -> float:
        """Seconds until the next look: a server that starts is looked at often at first."""
        if self.phase in SERVING:
            return self._settings.poll_s
        waited_s = now - self._started_at
        return min(self._settings.poll_s, SLOWEST_START_POLL_S, max(FIRST_POLL_S, waited_s / 8))

    def up_for_s(self, now: float) -> float | None:
        """How long the server has been up; None if it never was."""
        return None if self._up_since is None else now - self._up_since

    def start_took_s(self) -> float:
        """From the start of the server to its first answer."""
        return 0.0 if self._up_since is None else self._up_since - self._started_at
