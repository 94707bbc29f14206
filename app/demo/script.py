"""What the demonstration tells: its subscribers, what happens to them, and how each message must end."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

# Ends of addresses that the simulators treat badly.
UNDELIVERABLE = "13"  # taken, then a receipt that says UNDELIV
REFUSED = "14"  # refused at submit: ESME_RINVDSTADR
NOBODY = "nobody"  # refused at RCPT: 550 5.1.1
DEAD_MAIL = f"{NOBODY}@example.org"

SMSC_OPTIONS = ["--receipt-delay", "0.7", "--outcome", f"{UNDELIVERABLE}=UNDELIV", "--error", f"{REFUSED}=0x0B"]
MAILBOX_OPTIONS = ["--rule", f"{NOBODY}@*=550 5.1.1 No such user here"]

# Wherever this runs, one of these has day: quiet hours would hold what is not urgent until the morning.
ZONES = (
    *("Europe/Moscow", "Asia/Yekaterinburg", "Asia/Novosibirsk", "Asia/Vladivostok", "Pacific/Auckland"),
    *("Pacific/Honolulu", "America/Los_Angeles", "America/New_York", "America/Sao_Paulo", "Atlantic/Azores"),
)


def zone_with_day(at: datetime) -> str:
    """The first zone whose clock stands between 9:30 and 20:00."""
    return next((zone for zone in ZONES if time(9, 30) <= at.astimezone(ZoneInfo(zone)).time() <= time(20)), ZONES[0])


def due_on(zone: str, days: int) -> date:
    """The day so many days from now, where the subscribers live."""
    return datetime.now(ZoneInfo(zone)).date() + timedelta(days=days)


@dataclass(frozen=True, slots=True)
class Subscriber:
    number: str
    name: str
    locale: str
    phone: str = ""
    email: str = ""
    balance: str = "340.00"
    due_in: int = 15  # days until the next charge; far from it nobody is reminded
    announce: bool = True

    def body(self, zone: str) -> dict[str, Any]:
        """For PUT /accounts/NUMBER."""
        day = due_on(zone, self.due_in).day
        contacts = [{"channel": channel, "address": address} for channel, address in (("sms", self.phone), ("email", self.email)) if address]
        return {
            "name": self.name, "status": "active", "balance": self.balance, "balance_as_of": (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
            "credit_limit": "0.00", "currency": "RUB", "locale": self.locale, "timezone": zone, "tariff": "Home 100", "threshold": "50.00", "contacts": contacts,
            "charges": [{"id": "tariff", "title": "Home 100", "amount": "600.00", "kind": "monthly", "day": day, "announce": self.announce}],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Happening:
    """One operation event: who, what, and its data."""

    number: str
    type: str
    data: dict[str, Any] = field(default_factory=dict)


SOON = 3  # days: within the warning days, and on the very day of which charges are announced

SUBSCRIBERS = (
    Subscriber("100501", "Анна Петрова", "ru", "+79160000101", "anna@example.org", "112.30"),
    Subscriber("100502", "Борис Иванов", "ru", "+79160000102"),
    Subscriber("100503", "Вера Смирнова", "ru", "+79160000103", "vera@example.org"),
    Subscriber("100504", "Emma Brown", "en", "+79160000104", "emma@example.org"),
    Subscriber("100505", "Frank Green", "en", f"+791600002{UNDELIVERABLE}"),
    Subscriber("100506", "Галина Орлова", "ru", email=DEAD_MAIL),
    Subscriber("100507", "Harry White", "en", f"+791600003{REFUSED}", "harry@example.org"),
    Subscriber("100508", "Дмитрий Кузнецов", "ru-RU", "+79160000108", "dmitry@example.org"),
    Subscriber("100509", "Игорь Волков", "ru", "+79160000109", balance="500.00"),
    Subscriber("100510", "Ксения Лебедева", "ru", "+79160000110", balance="2000.00", due_in=SOON, announce=False),
    Subscriber("100511", "Olivia Young", "en", "+79160000111", balance="900.00", due_in=SOON),
)

LONG_TARIFF = "Домашний интернет 500 Мбит/с с телевидением (180 каналов) и мобильной связью для всей семьи"
LONG_REASON = (
    "По вашему заявлению. Взятые в аренду приставку, пульт и маршрутизатор нужно вернуть в течение десяти дней; остаток оплаты возвращён на лицевой счёт, "
    "подключить услугу снова можно в личном кабинете, по телефону или в офисе, прежние настройки сохранятся ещё три месяца."
)

# The words that come with Vestnik fit one part. An operator's own may be longer: this one takes two, each of 67 UCS-2 units.
LONG_SMS = {"type": "service.disconnected", "channel": "sms", "locale": "ru-RU"}
LONG_SMS_TEXT = (
    "Счёт {{ account.number }}: услуга «{{ service.name }}» отключена. Верните приставку и пульт в наш офис в течение десяти дней. "
    "Баланс {{ account.balance | money }}"
)

# Posted one by one, each as a request of its own: binary and structured mode by turns.
SINGLE = (
    Happening("100501", "payment.received", {"amount": "500.00", "balance": "612.30", "method": "card"}),
    Happening("100502", "service.connected", {"service": {"code": "tv", "name": "Телевидение"}, "price": "250.00", "period": "month"}),
    Happening("100503", "tariff.changed", {"old_tariff": "Домашний 100", "new_tariff": LONG_TARIFF, "price": "990.00"}),
    Happening("100504", "tariff.changed", {"old_tariff": "Home 100", "new_tariff": "Home 300", "price": "750.00"}),
)
# Posted together, as the billing's nightly run would.
BATCH = (
    Happening("100505", "payment.received", {"amount": "150.00", "method": "cash"}),
    Happening("100506", "service.connected", {"service": {"code": "av", "name": "Антивирус"}, "price": "99.00"}),
    Happening("100507", "payment.received", {"amount": "1000.00", "method": "transfer"}),
    Happening("100508", "service.disconnected", {"service": {"code": "tv", "name": "Телевидение"}, "reason": LONG_REASON}),
)
# Balances tell nobody by themselves. Up first, and then down: whoever was reminded in an earlier demonstration is to be reminded again.
BALANCES = (
    Happening("100509", "balance.changed", {"balance": "500.00"}),
    Happening("100510", "balance.changed", {"balance": "2000.00"}),
    Happening("100509", "balance.changed", {"balance": "45.00"}),
    Happening("100510", "balance.changed", {"balance": "100.00"}),
)
# What Vestnik itself has to say then: at or below the threshold, short of money in a few days, a charge to come.
REMINDED = (("100509", "balance.threshold_reached"), ("100510", "balance.exhausting"), ("100511", "charges.upcoming"))
SCANS = ("exhaustion", "threshold", "upcoming")
STRANGER = Happening("no-such-account", "payment.received", {"amount": "1.00"})


def expected_state(channel: str, address: str) -> str:
    """How a message to this address ends."""
    if channel == "email":
        return "failed" if address.startswith(f"{NOBODY}@") else "accepted"
    if address.endswith(UNDELIVERABLE):
        return "undelivered"
    return "failed" if address.endswith(REFUSED) else "delivered"
