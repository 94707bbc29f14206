"""What is said about a template, in English where it is said, and here in Russian: one table, a row for each sentence.

`{}` stands for what is filled in. `tests/rendering/test_language.py` goes through the sentences of the package and misses none."""

import re
from collections.abc import Mapping
from functools import cache

RUSSIAN: Mapping[str, str] = {
    # Of the source.
    "Keep this part under {} characters.": "Сократите эту часть: не больше {} знаков.",
    "Keep what stands in {{ }} and {% %} under {} characters.": "Сократите то, что стоит в {{ }} и {% %}: не больше {} знаков.",
    "This template is too complex: make it shorter, or nest it less.": "Шаблон слишком сложен: сделайте его короче или уменьшите вложенность.",
    "This cannot be read here.": "Это место не удаётся прочитать.",
    "`{% {} %}` is not closed: add `{% end{} %}`.": "`{% {} %}` не закрыт: добавьте `{% end{} %}`.",
    "The character `{}` means nothing here: put texts into straight quotes, '...'.": "Знак `{}` здесь ничего не значит: берите тексты в прямые кавычки, '...'.",
    "The character `{}` means nothing here.": "Знак `{}` здесь ничего не значит.",
    "This text is not closed: add `{}`.": "Текст не закрыт: добавьте `{}`.",
    "The template ends in the middle of a tag: `{}` is missing.": "Шаблон кончается посреди тега: не хватает `{}`.",
    "`{}` does not belong here: `{% {} %}` is still open, close it with `{% end{} %}`.": (
        "`{}` здесь не на месте: ещё открыт `{% {} %}`, закройте его через `{% end{} %}`."
    ),
    "`{}` closes nothing: no `{% if %}` or `{% for %}` stands before it.": "`{}` ничего не закрывает: перед ним нет `{% if %}` или `{% for %}`.",
    "`{}` does not belong here: `{}` was expected.": "`{}` здесь не на месте: ожидалось `{}`.",
    "`{}` does not belong here.": "`{}` здесь не на месте.",
    "There is no tag `{}`. There are: {}.": "Тега `{}` нет. Есть: {}.",
    "Something is missing before `{}`: a name or a value.": "Перед `{}` чего-то не хватает: имени или значения.",
    "After `{%` a tag is expected: {}.": "После `{%` ожидается тег: {}.",
    "After the dot a name is expected.": "После точки ожидается имя.",
    "This comment is not closed: add `#}`.": "Примечание не закрыто: добавьте `#}`.",
    "`{% raw %}` is not closed: add `{% endraw %}`.": "`{% raw %}` не закрыт: добавьте `{% endraw %}`.",
    "One `is` may not follow another: join them with `and`.": "Один `is` не может следовать за другим: соедините их через `and`.",
    "A template cannot give a value to this: use a name of your own.": "Этому нельзя присвоить значение: возьмите своё имя.",
    "This name has a character that no name may have.": "В этом имени есть знак, которого в именах не бывает.",
    "The template ends before all of its tags are closed.": "Шаблон кончается раньше, чем закрыты все теги.",
    "These arguments cannot be read: write them one by one, with commas.": "Эти параметры не удаётся прочитать: пишите их по одному, через запятую.",
    # Of the tree.
    "A template may not use `{}`.": "В шаблоне нельзя использовать `{}`.",
    "A template may not use `{}`: put filters behind a value, with `|`.": "В шаблоне нельзя использовать `{}`: ставьте фильтры после значения, через `|`.",
    "A template may not use `{}` with a block: write `{% set name = value %}`.": (
        "В шаблоне нельзя использовать `{}` с блоком: пишите `{% set имя = значение %}`."
    ),
    "A template may not use `{}`: use `set`.": "В шаблоне нельзя использовать `{}`: возьмите `set`.",
    "A template may not use dictionaries.": "В шаблоне нельзя использовать словари.",
    "A template may not use namespaces: set one simple name.": "В шаблоне нельзя использовать пространства имён: присваивайте простому имени.",
    "A template may not use {}.": "В шаблоне нельзя использовать {}.",
    "A name may not begin with an underscore.": "Имя не может начинаться с подчёркивания.",
    "Write the arguments one by one.": "Пишите параметры по одному.",
    "There is no filter `{}`. There are: {}.": "Фильтра `{}` нет. Есть: {}.",
    "The filter `{}` does not take these arguments. It takes: {}.": "Фильтр `{}` не принимает таких параметров. Он принимает: {}.",
    "There is no test `{}`. There are: {}.": "Проверки `{}` нет. Есть: {}.",
    "The test `{}` does not take these arguments. It takes: {}.": "Проверка `{}` не принимает таких параметров. Она принимает: {}.",
    "This number is too large.": "Это число слишком велико.",
    "A loop may not be recursive.": "Цикл не может вызывать сам себя.",
    "Set one simple name at a time.": "Присваивайте по одному простому имени.",
    "A template may call nothing but range(...): use filters.": "В шаблоне можно вызвать только range(...): для остального есть фильтры.",
    "`{}` is undefined here. There are: {}.": "Имени `{}` здесь нет. Есть: {}.",
    # Of the writing.
    "`{}` is undefined": "имени `{}` нет",
    "The text would have more than {} characters.": "В тексте было бы больше {} знаков.",
    "The {} came out empty.": "Часть «{}» получилась пустой.",
    "a number here cannot be calculated": "это число не удаётся вычислить",
    "this template takes too much memory": "шаблон требует слишком много памяти",
    "values of different kinds cannot be compared": "значения разного рода нельзя сравнивать",
    "this cannot be done with a value of this kind": "со значением такого рода этого сделать нельзя",
    "this cannot be written": "это не удаётся написать",
    "only a single value has a text: use join or a loop for a list": "написать можно только одно значение: для списка возьмите join или цикл",
    "a text may not grow beyond 10,000 characters within a template": "текст внутри шаблона не может быть длиннее 10 000 знаков",
    "this works on a list": "это делается со списком",
    "a list may have at most 1,000 items": "в списке может быть не больше 1000 элементов",
    "the items of this list have no `{}`": "у элементов этого списка нет `{}`",
    "round to 0-6 digits, by common, ceil or floor": "округлять можно до 0-6 знаков, способом common, ceil или floor",
    "this template takes too long: its loops go round too often": "шаблон пишется слишком долго: в циклах слишком много оборотов",
    "this template takes more than a second to write": "шаблон пишется дольше секунды",
    "whether it is odd, even or divisible is asked of a number": "чётность и делимость спрашивают у числа",
    "a range is made of whole numbers, and its step is not 0": "range составляют из целых чисел, и шаг у него не 0",
    "a part of a text or a list is named by whole numbers, and its step is not 0": "часть текста или списка задают целыми числами, и шаг у неё не 0",
    "only a text or a list has parts": "части бывают только у текста и списка",
    "a part of a text has at most 10,000 characters, one of a list 1,000 items": "часть текста — не больше 10 000 знаков, часть списка — не больше 1000 элементов",
    "write a length (short, medium, long, full) or a pattern such as `d MMMM y`, `HH:mm`": (
        "укажите длину (short, medium, long, full) или образец вроде `d MMMM y`, `HH:mm`"
    ),
    "a range may have at most 1,000 numbers": "в range может быть не больше 1000 чисел",
    "a list in a template may hold single values only": "список в шаблоне может состоять только из отдельных значений",
    "write the currency as three capital letters, e.g. RUB": "пишите валюту тремя заглавными латинскими буквами, например RUB",
    "keep the pattern of a date under 40 characters": "сократите образец даты: не больше 40 знаков",
    "keep the pattern of a time under 40 characters": "сократите образец времени: не больше 40 знаков",
    'money is written of a number or of a string such as "123.45"': "деньги пишутся из числа или из строки вида «123.45»",
    "this is no sum of money": "это не сумма денег",
    "a date or a time is written of one, or of an ISO 8601 string": "дата и время пишутся из даты, времени или строки ISO 8601",
    "transliterate at most 2,000 characters": "перевести в латиницу можно не больше 2000 знаков",
    "`{}` does not go with these two: join texts with ~": "`{}` не подходит к этим двум значениям: тексты соединяют через ~",
    "division by zero": "деление на ноль",
    "this number is too large": "это число слишком велико",
    # Of the HTML of letters and their layouts.
    "In the layout `{}`: {}": "В макете `{}`: {}",
    "A layout has `{{ content }}` once, where the words of a letter go.": "В макете один раз стоит `{{ content }}`: туда попадают слова письма.",
    "`{}` cannot stand here: the parts of the letter around it are put together anew.": "`{}` не может стоять здесь: части письма вокруг собираются заново.",
    "Within a tag a mark may stand in the value of an attribute alone, in quotes.": "Внутри тега подстановка бывает только в значении атрибута, в кавычках.",
    "No value may stand in a script.": "В сценарий нельзя подставлять значения.",
    "The last tag, comment or style sheet is not closed.": "Последний тег, примечание или таблица стилей не закрыты.",
    "Between `{% {} %}` and `{% {} %}` close every element that you open, and no other.": (
        "Между `{% {} %}` и `{% {} %}` закрывайте каждый открытый элемент, и никакой другой."
    ),
    "MJML here has no declarations and no CDATA.": "В MJML здесь нет объявлений и CDATA.",
    "A style sheet may neither load another one nor run anything: put the rules here.": (
        "Таблица стилей не может ни загружать другую, ни что-либо исполнять: впишите правила сюда."
    ),
    "In a comment a mark stands apart from its dashes: put a space between.": "В примечании подстановка стоит отдельно от чёрточек: поставьте пробел.",
    "Begin a comment with `<!-- ` and end it with ` -->`.": "Начинайте примечание с `<!-- ` и заканчивайте ` -->`.",
    "Write `&lt;/` where you mean these characters: no end tag begins so.": "Если нужны сами эти знаки, пишите `&lt;/`: закрывающий тег так не начинается.",
    "A letter has no `<{}>`: mail programs show nothing of it.": "В письме не бывает `<{}>`: почтовые программы этого не показывают.",
    "A letter has no `{}`: mail programs run nothing.": "В письме не бывает `{}`: почтовые программы ничего не исполняют.",
    "A link leads to an address: `https://...`, `mailto:` or `tel:`.": "Ссылка ведёт на адрес: `https://...`, `mailto:` или `tel:`.",
    "Within `{}` there are no elements.": "Внутри `{}` элементов не бывает.",
    "Keep a letter under {} elements.": "Сократите письмо: не больше {} элементов.",
    "Keep a letter under {} elements in one another.": "Уменьшите вложенность письма: не больше {} элементов друг в друге.",
    "A letter has no `<{}>`: mail programs do not run it, and load nothing by it.": "В письме не бывает `<{}>`: почтовые программы это не исполняют и не загружают.",
    "A letter has no `<{}>`: nothing is loaded from elsewhere.": "В письме не бывает `<{}>`: со стороны ничего не загружается.",
    "MJML has no `<{}>`.": "В MJML нет `<{}>`.",
    "Give `mj-social-element` a `src` of your own: its picture would come from somebody else's server.": (
        "Дайте `mj-social-element` свой `src`: иначе картинка придёт с чужого сервера."
    ),
    "`{}` closes nothing: close elements in the order in which they were opened.": "`{}` ничего не закрывает: закрывайте элементы в том порядке, в каком открывали.",
    "There are too many style rules for so many elements: use fewer of either.": "Слишком много правил стиля на столько элементов: уменьшите то или другое.",
    "Begin with `<mjml>`, or name a layout.": "Начните с `<mjml>` или назовите макет.",
    "This is no MJML: {}.": "Это не MJML: {}.",
    "With its layout and styles the letter has more than {} characters.": "Вместе с макетом и стилями в письме больше {} знаков.",
    "the layout has its content where MJML shows nothing": "содержание стоит в макете там, где MJML ничего не показывает",
    # Of what is around: which fields there are, and which values may be absent.
    "Add `{}`: this channel needs it.": "Добавьте `{}`: этому каналу оно нужно.",
    "Leave out `{}`: an SMS has a text alone.": "Уберите `{}`: в SMS бывает только текст.",
    "Add `text`, `html` or `mjml`: a letter needs one of them.": "Добавьте `text`, `html` или `mjml`: письму нужно хотя бы одно из них.",
    "Give `html` or `mjml`, not both.": "Укажите `html` или `mjml`, а не оба сразу.",
    "Leave out `layout`: it stands around `html` or `mjml`, and there is neither.": "Уберите `layout`: он окружает `html` или `mjml`, а их нет.",
    "Leave out `options`: they are for SMS.": "Уберите `options`: это настройки SMS.",
    "There is no layout of this name.": "Макета с таким именем нет.",
    "There is no uploaded file of this id.": "Загруженного файла с таким номером нет.",
    "The payment code has no payee in {}: add `payee` to each brand.": "Для платёжного кода нет получателя: {}. Добавьте `payee` каждому бренду.",
    "The payment code has no payee in {}: add `payee` to each brand, and make one the default.": (
        "Для платёжного кода нет получателя: {}. Добавьте `payee` каждому бренду и назначьте бренд по умолчанию."
    ),
    "All files of a version may have at most {} MiB together.": "Все файлы версии вместе — не больше {} МиБ.",
    "`{}` may be empty here: ask `{% if {} is defined %}` first, or write `{}|default('...')`.": (
        "`{}` здесь может оказаться пустым: сначала спросите `{% if {} is defined %}` или напишите `{}|default('...')`."
    ),
    "{} when the data have only what this type requires": "{}, когда в данных только то, что для этого типа обязательно",
    "the text takes {} parts, and `max_parts` allows {}": "текст занимает частей: {}, а `max_parts` допускает {}",
    "the text is another than the registered one from character {} on: `{}`": "текст расходится с зарегистрированным, начиная со знака {}: `{}`",
    "{} when the values are the longest plausible ones": "{}, когда значения самые длинные из возможных",
    "{} when one message tells several events (`count`)": "{}, когда одно сообщение говорит о нескольких событиях (`count`)",
    "The letter would have no text.": "В письме не было бы текста.",
}

# Within these stands another sentence.
_AROUND = frozenset(row for row in RUSSIAN if row.startswith(("{} when", "In the layout")))


def russian(sentence: str) -> str:
    """The sentence in Russian; itself where the table has no row of it."""
    if (plain := RUSSIAN.get(sentence)) is not None:
        return plain
    for pattern, row, said in _rows():
        if found := pattern.fullmatch(sentence):
            values = [russian(value) if row in _AROUND else value for value in found.groups()]
            return _filled(said, values)
    return sentence


def is_ours(sentence: str) -> bool:
    """Whether the sentence is one of the table, and so meant for whoever writes templates."""
    return sentence in RUSSIAN or any(pattern.fullmatch(sentence) for pattern, *_ in _rows())


def _filled(said: str, values: list[str]) -> str:
    pieces = said.split("{}")
    return "".join(piece + value for piece, value in zip(pieces, [*values, ""], strict=True))


@cache
def _rows() -> tuple[tuple[re.Pattern[str], str, str], ...]:
    """Those with gaps, the ones that say most before the others."""
    rows = [(english, said) for english, said in RUSSIAN.items() if "{}" in english]
    return tuple(
        (re.compile("(.*?)".join(re.escape(piece) for piece in english.split("{}")), re.DOTALL), english, said)
        for english, said in sorted(rows, key=lambda row: (row[0] not in _AROUND, -len(row[0].replace("{}", ""))))
    )
