"""What Prometheus sees. Labels are bounded: never an account, an address or a text."""

from prometheus_client import Counter, Gauge, Histogram, Info

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

EVENTS = Counter("vestnik_events", "Events by what intake said of them", ["type", "result"])
MESSAGES = Counter("vestnik_messages", "Messages that entered a state", ["channel", "gateway", "type", "state"])
PLAN_SECONDS = Histogram("vestnik_plan_seconds", "One batch of events planned", buckets=FAST)
SEND_SECONDS = Histogram("vestnik_send_seconds", "From the claim of a message to its outcome committed", ["gateway"], buckets=FAST)
RECEIPT_SECONDS = Histogram("vestnik_receipt_seconds", "From a receipt's arrival to its commit", ["gateway"], buckets=FAST)
QUEUE_MESSAGES = Gauge("vestnik_queue_messages", "Messages in the outbox", ["gateway", "state"])
QUEUE_OLDEST = Gauge("vestnik_queue_oldest_seconds", "Age of the oldest message that is due", ["gateway"])
BIND_UP = Gauge("vestnik_smpp_bind_up", "1 while bound", ["gateway", "slot"])
WINDOW_IN_USE = Gauge("vestnik_smpp_window_in_use", "Parts claimed and not yet settled", ["gateway", "slot"])
THROTTLED = Counter("vestnik_smpp_throttled", "Answers that asked us to slow down", ["gateway"])
STATUS = Counter("vestnik_smpp_status", "Answers to submit_sm by command_status, by number and by name", ["gateway", "status", "name"])
RECEIPTS = Counter("vestnik_receipts", "Delivery receipts by what was done with them", ["gateway", "result"])
STOPS = Gauge("vestnik_stops", "Stops that stand", ["scope"])
BUDGET_USED = Gauge("vestnik_budget_used_ratio", "Share of a day's budget that is spent", ["scope", "name"])
INBOUND = Counter("vestnik_inbound_messages", "SMS from subscribers by what they did", ["gateway", "action"])
BOUNCES = Counter("vestnik_bounces", "Mail that came back, by what it said of the letter", ["kind"])
SCAN_SECONDS = Histogram("vestnik_scan_seconds", "A scan from its request to its end", ["kind"], buckets=(1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600))
SCAN_HITS = Counter("vestnik_scan_hits", "Accounts that a scan has told", ["kind"])
SCAN_SUCCESS = Gauge("vestnik_scan_last_success_timestamp_seconds", "When the last scan of a kind ended well", ["kind"])
SCAN_SLICES = Gauge("vestnik_scan_slices", "Slices of the scans at work, in the phase that they are in", ["kind", "state"])
PARTITIONS_AHEAD = Gauge("vestnik_partitions_ahead", "Whole months after this one that have a partition; -1: rows go to the tail", ["table"])
RETENTION_SUCCESS = Gauge("vestnik_retention_last_success_timestamp_seconds", "When the last run of retention ended well")
HTTP_REQUESTS = Counter("vestnik_http_requests", "Requests", ["method", "route", "status"])
HTTP_SECONDS = Histogram("vestnik_http_request_seconds", "Duration of a request", ["route"], buckets=FAST)
BUILD = Info("vestnik_build", "What runs here")

RECEIPT_RESULTS = ("matched", "duplicate", "parked", "quarantined", "unmatched", "no_receipt", "unknown_word")
INBOUND_ACTIONS = ("stop", "start", "kept", "incomplete", "repeated")
BOUNCE_KINDS = ("hard", "soft", "complaint", "delayed", "delivered", "unknown", "repeated")
EVENT_RESULTS = ("accepted", "duplicate", "rejected")


def start_at_zero(*, gateways: list[str], types: list[str]) -> None:
    """Series that are known to come exist from the start: an alert on `increase()` needs the zero before the first one."""
    for bounce in BOUNCE_KINDS:
        BOUNCES.labels(bounce)
    for kind in types:
        for result in EVENT_RESULTS:
            EVENTS.labels(kind, result)
    for gateway in gateways:
        THROTTLED.labels(gateway)
        SEND_SECONDS.labels(gateway)
        RECEIPT_SECONDS.labels(gateway)
        for receipt in RECEIPT_RESULTS:
            RECEIPTS.labels(gateway, receipt)
        for action in INBOUND_ACTIONS:
            INBOUND.labels(gateway, action)
