"""What Prometheus sees. Labels are bounded: never an account, an address or a text.

`python -m app.core.metrics_page` makes the page of all metrics for the docs from this file."""

from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Gauge, Histogram, Info, disable_created_metrics

# A series beside each counter that says when it began: nobody asks, and a scrape is half as long without.
disable_created_metrics()  # type: ignore[no-untyped-call]

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LONG = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
TO_THE_HANDSET = (1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)

# --- the pipeline ---
EVENTS = Counter("vestnik_events", "Events by what intake said of them", ["type", "result"])
EVENTS_WAITING = Gauge("vestnik_events_waiting", "Events that are not planned yet (up to 100,000)")
EVENTS_OLDEST = Gauge("vestnik_events_oldest_seconds", "Age of the oldest event that is not planned yet")
MESSAGES = Counter("vestnik_messages", "Messages that entered a state", ["channel", "gateway", "type", "state"])
PLAN_SECONDS = Histogram("vestnik_plan_seconds", "One batch of events planned", buckets=FAST)
PLAN_FAILURES = Counter("vestnik_plan_failures", "Events that could not be planned, or not on one of their channels, by reason", ["reason"])
SEND_SECONDS = Histogram("vestnik_send_seconds", "From the claim of a message to its outcome committed", ["gateway"], buckets=FAST)
RECEIPT_SECONDS = Histogram("vestnik_receipt_seconds", "From a receipt's arrival to its commit", ["gateway"], buckets=FAST)
DELIVERY_SECONDS = Histogram(
    "vestnik_delivery_seconds", "From the SMSC's taking of an SMS of one part to the receipt that it was delivered", ["gateway"], buckets=TO_THE_HANDSET
)
QUEUE_MESSAGES = Gauge("vestnik_queue_messages", "Messages in the outbox", ["gateway", "state"])
QUEUE_OLDEST = Gauge("vestnik_queue_oldest_seconds", "Age of the oldest message that is due", ["gateway"])
STOPS = Gauge("vestnik_stops", "Stops that stand", ["scope"])
BUDGET_USED = Gauge("vestnik_budget_used_ratio", "Share of a day's budget that is spent", ["scope", "name"])
SWEEPER_FOUND = Counter("vestnik_sweeper_found", "Work that was found lost and set going again: whoever had it died or fell silent", ["queue"])

# --- the wires ---
BINDS_WANTED = Gauge("vestnik_smpp_binds_wanted", "Binds that an enabled gateway is to have", ["gateway"])
BIND_UP = Gauge("vestnik_smpp_bind_up", "1 while bound", ["gateway", "slot"])
BIND_BLACKOUT = Gauge("vestnik_smpp_bind_blackout", "1 in the hours without a bind that the gateway's profile names", ["gateway", "slot"])
WINDOW_IN_USE = Gauge("vestnik_smpp_window_in_use", "Parts claimed and not yet settled", ["gateway", "slot"])
THROTTLED = Counter("vestnik_smpp_throttled", "Answers that asked us to slow down", ["gateway"])
STATUS = Counter("vestnik_smpp_status", "Answers to submit_sm by command_status, by number and by name", ["gateway", "status", "name"])
SMTP_UP = Gauge("vestnik_smtp_up", "1 while the mail server answers: its last session opened, and none has failed since", ["gateway"])
SMTP_CONNECTIONS = Gauge("vestnik_smtp_connections", "Connections that are open to the mail server", ["gateway"])
RECEIPTS = Counter("vestnik_receipts", "Delivery receipts by what was done with them", ["gateway", "result"])
INBOUND = Counter("vestnik_inbound_messages", "SMS from subscribers by what they did", ["gateway", "action"])
BOUNCES = Counter("vestnik_bounces", "Mail that came back, by what it said of the letter", ["kind"])

# --- scans ---
SCAN_SECONDS = Histogram("vestnik_scan_seconds", "A scan from its request to its end", ["kind"], buckets=LONG)
SCAN_HITS = Counter("vestnik_scan_hits", "Accounts that a scan has told", ["kind"])
SCAN_SUCCESS = Gauge("vestnik_scan_last_success_timestamp_seconds", "When the last scan of a kind ended well", ["kind"])
SCAN_SLICES = Gauge("vestnik_scan_slices", "Slices of the scans at work, in the phase that they are in", ["kind", "state"])

# --- what follows: reports, webhooks, audit, retention ---
REPORT_DELTAS_WAITING = Gauge("vestnik_report_deltas_waiting", "Changes that are not folded into the cells of reports yet; reports count them all the same")
REPORT_FOLD_SUCCESS = Gauge(
    "vestnik_report_fold_last_success_timestamp_seconds", "When changes were last folded into the cells of reports, or none were waiting"
)
WEBHOOK_DELIVERIES = Counter("vestnik_webhook_deliveries", "Attempts at webhooks by what came of them", ["result"])
WEBHOOKS_GIVEN_UP = Counter("vestnik_webhooks_given_up", "Webhooks that nobody took within two days")
WEBHOOKS_DISABLED = Gauge("vestnik_webhooks_disabled", "Endpoints that are off because they answered 410, or took nothing for five days")
WEBHOOK_BACKLOG = Gauge("vestnik_webhook_backlog", "Webhooks that wait for their first or next attempt")
WEBHOOK_OLDEST = Gauge("vestnik_webhook_oldest_seconds", "Age of the oldest webhook that is due")
AUDIT_UNSEALED = Gauge("vestnik_audit_unsealed_records", "Audit records that are not yet in the hash chain")
RETENTION_SUCCESS = Gauge("vestnik_retention_last_success_timestamp_seconds", "When a task of retention last ended well", ["task"])
PARTITIONS_AHEAD = Gauge("vestnik_partitions_ahead", "Whole months after this one that have a partition; -1: rows go to the tail", ["table"])

# --- the API and the processes ---
HTTP_REQUESTS = Counter("vestnik_http_requests", "Requests", ["method", "route", "status"])
HTTP_SECONDS = Histogram("vestnik_http_request_seconds", "Duration of a request", ["route"], buckets=FAST)
KEY_QUOTA_REFUSED = Counter("vestnik_key_quota_refused", "Requests refused because a key's rate or its day's quota was spent")
WORKERS = Gauge("vestnik_workers", "Worker processes that serve a queue and have said within a minute that they live", ["queue"])
WAKEUPS_WAITING = Gauge("vestnik_wakeups_waiting", "Wake-ups in a queue of Redis that nobody has taken", ["queue"])
DATABASE_UP = Gauge("vestnik_database_up", "1 while the database answers this process")
DATABASE_CONNECTIONS = Gauge("vestnik_database_connections", "Connections of this process to the database", ["state"])
DATABASE_CONNECTIONS_MOST = Gauge("vestnik_database_connections_most", "Connections that this process may have to the database")
REDIS_UP = Gauge("vestnik_redis_up", "1 while Redis answers this process")
CLOCK_SKEW = Gauge("vestnik_clock_skew_seconds", "How far this process' clock is ahead of the database's")
BUILD = Info("vestnik_build", "What runs here")

EVENT_RESULTS = ("accepted", "duplicate", "rejected")
PLAN_REASONS = ("planning_failed", "render_failed")
SWEEPER_QUEUES = ("mail", "smpp", "scan", "webhooks")
RECEIPT_RESULTS = ("matched", "duplicate", "parked", "quarantined", "unmatched", "no_receipt", "unknown_word")
INBOUND_ACTIONS = ("stop", "start", "kept", "incomplete", "repeated")
BOUNCE_KINDS = ("hard", "soft", "complaint", "delayed", "delivered", "unknown", "repeated")
SCAN_KINDS = ("exhaustion", "threshold", "upcoming")
WEBHOOK_RESULTS = ("delivered", "failed", "gone", "refused")
# What alerts and shares are made of. All states of all types would be thousands of series, most of them 0 for ever.
ENDS = ("accepted", "delivered", "undelivered", "expired", "failed", "unknown")
CHANNEL_OF = {"smpp": "sms", "smtp": "email"}


def start_at_zero(*, gateways: Mapping[str, str], types: Iterable[str]) -> None:
    """Series that are known to come exist from the start: an alert on `increase()` needs the zero before the first one.

    `gateways`: name -> kind, smpp or smtp."""
    types = list(types)
    start_intake(types)
    for kind in BOUNCE_KINDS:
        BOUNCES.labels(kind)
    for result in WEBHOOK_RESULTS:
        WEBHOOK_DELIVERIES.labels(result)
    for kind in SCAN_KINDS:
        SCAN_SECONDS.labels(kind)
        SCAN_HITS.labels(kind)
    for queue in SWEEPER_QUEUES:
        SWEEPER_FOUND.labels(queue)
    for reason in PLAN_REASONS:
        PLAN_FAILURES.labels(reason)
    for name, kind in gateways.items():
        start_gateway(name, kind, types)


def start_intake(types: Iterable[str]) -> None:
    """What the API counts of events."""
    for type_ in types:
        for result in EVENT_RESULTS:
            EVENTS.labels(type_, result)


def start_gateway(name: str, kind: str, types: Iterable[str], *, wire: bool = False) -> None:
    """What is counted of one gateway by those that sweep, and, with `wire`, by the process that has its wire."""
    if wire:
        SEND_SECONDS.labels(name)
        if kind == "smpp":
            THROTTLED.labels(name)
            RECEIPT_SECONDS.labels(name)
            DELIVERY_SECONDS.labels(name)
    for type_ in types:
        for state in ENDS:
            MESSAGES.labels(CHANNEL_OF.get(kind, "sms"), name, type_, state)
    if kind == "smpp":
        for result in RECEIPT_RESULTS:
            RECEIPTS.labels(name, result)
        for action in INBOUND_ACTIONS:
            INBOUND.labels(name, action)
