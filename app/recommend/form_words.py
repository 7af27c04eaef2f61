"""Words and quantities by which titles of one thing differ: sizes, colours, platforms, editions.

The words count only where they fill a part of a title of their own: in brackets, after a dash or
after a comma. There "black" is a colour; in "Black Swan" it is not. Quantities (500 ml, 2-pack,
3/8" x 4 ft) count anywhere, except a measure in full at the start of a title ("5 Feet Apart"). The
lists hold what titles in shops say most often, in some languages. A word that is missing here keeps
two titles apart.
"""

import re
from collections.abc import Collection, Sequence

from tree.item import normalise

# "|" stands for a blank inside a phrase.
_LOOKS = """
    black white red blue green yellow orange purple pink brown grey gray silver gold beige navy
    turquoise teal ivory cream violet magenta cyan clear transparent multicolor multicolour
    multicolored assorted
    schwarz weiß weiss rot blau grün gelb lila rosa braun grau silber türkis bunt
    noir noire blanc blanche rouge bleu bleue vert verte jaune rose marron gris grise argent doré
    negro negra blanco blanca rojo roja azul verde amarillo amarilla naranja morado rosado
    nero nera bianco bianca rosso rossa blu giallo gialla viola marrone grigio
    preto preta branco branca vermelho vermelha amarelo amarela roxo cinza
    zwart wit rood blauw groen geel paars bruin grijs zilver goud
    czarny czarna biały biała czerwony czerwona niebieski niebieska zielony zielona żółty szary
    черный чёрный белый красный синий зеленый зелёный желтый жёлтый серый
    黒 白 赤 青 緑 黄 黑 红 紅 蓝 藍 绿 綠 黄色 黑色 白色 红色 紅色 蓝色 藍色 绿色 綠色 灰色 粉色
    ブラック ホワイト レッド ブルー グリーン イエロー ピンク グレー
    검정 흰색 빨강 파랑 초록 블랙 화이트 레드 블루 أسود أبيض أحمر أزرق أخضر
    काला सफेद लाल नीला हरा
"""
_SHADES = """
    dark light deep bright hot pale neon pastel midnight sky royal navy jet space piano pearl satin
    matte matt glossy metallic solid opaque translucent transparent olive forest army ocean ice
    cosmic off dunkel hell
"""
_SIZES = """
    xxs xs s m l xl xxl xxxl 2xl 3xl 4xl 5xl small medium large extra|small extra|large x|large
    one|size klein mittel groß gross petit moyen grand pequeño mediano grande piccolo medio
    lサイズ mサイズ sサイズ llサイズ 大 中 小
"""
_EDITIONS = """
    standard|edition limited|edition special|edition collectors|edition collector|edition
    deluxe|edition ultimate|edition complete|edition gold|edition platinum|edition premium|edition
    legendary|edition enhanced|edition definitive|edition
    game|of|the|year|edition goty|edition launch|edition day|one|edition steelbook|edition
    expanded|edition extended|edition anniversary|edition special|extended|edition
    remastered|edition édition|limitée édition|spéciale edición|limitada edición|especial
    edizione|limitata edição|limitada limitierte|auflage limitierte|edition
"""
_RELEASES = """
    goty steelbook standard|version limited|version deluxe|version deluxe collectors limited
    bonus|tracks explicit directors|cut theatrical|cut unrated widescreen full|screen fullscreen
    import japan|import uk|import us|import japanese|import japanese|version europe|import
    platinum|hits greatest|hits|edition nintendo|selects players|choice amazon|exclusive
    sonderausgabe 限定版 通常版 初回限定盤 通常盤 豪华版 한정판
    dvd blu|ray bluray blu|ray|dvd dvd|blu|ray 4k uhd 4k|uhd 4k|ultra|hd ultra|hd vhs vinyl lp cd
    audio|cd mp3|cd mp3 cassette dvd|rom cd|rom dvd|audio sacd
    paperback hardcover hardback kindle kindle|edition ebook e|book epub pdf audiobook large|print
    mass|market|paperback board|book spiral|bound library|binding
    taschenbuch gebundene|ausgabe gebunden hörbuch broschiert
    broché relié poche livre|audio tapa|blanda tapa|dura audiolibro copertina|rigida
    copertina|flessibile capa|comum capa|dura 文庫 単行本 平装 精装 オーディオブック
    download digital digital|code digital|download online|game|code online|code game|code dlc|code
    mac|download pc|download instant|access jewel|case bulk|packaging retail|packaging
    frustration|free|packaging game|only discontinued discontinued|by|manufacturer obsolete
    refurbished certified|refurbished renewed used new old|version old|model new|version generic
    colors|may|vary colours|may|vary packaging|may|vary single single|pack single|roll
    gebraucht generalüberholt neu reconditionné occasion reacondicionado
    pc mac linux windows pc|dvd win windows|xp windows|vista windows|7 windows|8 windows|10
    windows|11 android ios steam
    playstation sony|playstation playstation|1 playstation|2 playstation|3 playstation|4
    playstation|5 playstation2 playstation3 playstation4 ps1 ps2 ps3 ps4 ps5 psx
    sony|psp psp playstation|portable playstation|vita ps|vita psvita
    xbox xbox|360 xbox360 xbox|one xbox|series|x xbox|series|s xbox|series|x|s
    nintendo|ds nintendo|dsi ds nds nintendo|3ds 3ds nintendo|2ds 2ds nintendo|wii wii wii|u
    nintendo|wii|u nintendo|switch switch gamecube nintendo|gamecube nintendo|64 n64 nintendo|nes
    nes super|nes super|nintendo nintendo|super|nes snes game|boy game|boy|advance game|boy|color
    gameboy gameboy|advance gameboy|color gba gbc
    sega|genesis genesis mega|drive sega|saturn sega|dreamcast dreamcast sega|cd sega|game|gear
"""
_BESIDE = """
    color colour size edition version video game games console for and or with in the by
    farbe für couleur pour para colore per cor kleur kolor цвет サイズ カラー
"""
_BEFORE_A_NUMBER = """
    size us eu uk eur größe groesse gr taille talla taglia tamanho maat rozmiar размер サイズ
"""
_AFTER_A_NUMBER = "roll set box piece pack bag count pair bottle can stück pièce pieza pezzo"

_MOST_WORDS = 12  # of a part that is looked up
_LONGEST = 5  # words of a phrase


def _phrases(*lists: str) -> frozenset[str]:
    return frozenset(
        normalise(phrase.replace("|", " ")) for words in lists for phrase in words.split()
    )


_COLOURS = _phrases(_LOOKS)
_SHADES_OF = _phrases(_SHADES)
_RELEASED = _phrases(_EDITIONS, _RELEASES)
_ANY = _phrases(_LOOKS, _SIZES, _EDITIONS, _RELEASES)
_ALL_EDITIONS = _phrases(_EDITIONS)
_PASSED = _phrases(_BESIDE, _BEFORE_A_NUMBER) - {"us"}
_SIZE_WORDS = _phrases(_BEFORE_A_NUMBER)
_COUNT_WORDS = _phrases(_AFTER_A_NUMBER)


def says_only_form(words: Sequence[str], *, looks: bool) -> bool:
    """Whether a part of a title says nothing but in which form the thing comes.

    With `looks`, colours and sizes count, too.
    """
    if not 0 < len(words) <= _MOST_WORDS:
        return False
    return _consists_of(words, _ANY if looks else _RELEASED)


def _consists_of(words: Sequence[str], known: Collection[str]) -> bool:
    """Whether the words are phrases of `known`, sizes in numbers, and words beside them.

    Goes through the places in the text once, and at each tries the few lengths of a phrase: a
    regular expression would try all divisions of the text.
    """
    reached = {0: False}  # a place, and whether a word that counts has come before
    for at in range(len(words)):
        if at not in reached:
            continue
        for count in range(1, min(_LONGEST, len(words) - at) + 1):
            phrase = " ".join(words[at : at + count])
            if phrase in known or (count == 2 and _is_pair(*words[at : at + 2])):
                reached[at + count] = True
        if words[at] in _PASSED:
            reached.setdefault(at + 1, reached[at])
    return reached.get(len(words), False)


def _is_pair(first: str, second: str) -> bool:
    """Whether two words are a size and its number, a count, or a shade of a colour."""
    if second.isdigit():
        return first in _SIZE_WORDS
    if first.isdigit():
        return second in _COUNT_WORDS
    return first in _SHADES_OF and second in _COLOURS


def without_edition(words: Sequence[str]) -> Sequence[str]:
    """The words without the name of an edition at their end ("… Deluxe Edition")."""
    for count in range(min(_LONGEST, len(words) - 1), 1, -1):
        if " ".join(words[-count:]) in _ALL_EDITIONS:
            return words[:-count]
    return words


_NUMBER = r"\d+(?:[.,]\d+)*(?:[ -]\d+/\d+|/\d+)?"
_LENGTHS = r"mm|cm|inch(?:es)?|feet|foot|yds?|yards?|meters?|metres?|zoll|pouces?|pulgadas?"
_WEIGHTS = r"kgs?|mg|grams?|gramm|grammes?|gramos?|lbs?|pounds?|oz|ounces?|кг"
_VOLUMES = (
    r"(?:fl\.? ?|fluid )(?:oz|ounces?)|ml|cl|lit(?:er|re|ro|ri)s?|qts?|quarts?|gal|gallons?|pints?"
)
_COUNTS = (
    r"gb|tb|mb|pcs|pieces?|packs?|counts?|pairs?|rolls|sheets|dozen|bags|capsules|tablets"
    r"|stück|stk|er[ -]?packs?|er[ -]?sets?|pièces?|piezas?|unidades|pezzi|peças|stuks|sztuk|шт"
    r"|個|枚|本|入り|个|件|包|盒|개|매"
)
_GLUED = r"in|ft|g|l|m|pc|pk|ct|yd|er"  # words, too: a unit only where nothing stands between
_UNIT = (
    rf"(?:[ -]?(?:{_LENGTHS}|{_WEIGHTS}|{_VOLUMES}|{_COUNTS})(?!\w)\.?"
    rf"|-?(?:{_GLUED})(?!\w)(?!-\d)\.?|[\"'″′”’](?!\w))"
)
# What a title of a work may begin with: "5 Feet Apart". Titles in shops begin with "6ft", "16GB".
OPENING_MEASURE = re.compile(
    r"\A\d{1,4}[ -](?:inch(?:es)?|feet|foot|yards?|meters?|metres?|grams?|gramm|grammes?|pounds?"
    r"|ounces?|lit(?:er|re)s?|quarts?|gallons?|pints?)(?!\w)(?! ?[x×])"
)
_SIZED = r"size|eu|eur|grösse|groesse|gr\.?|taille|talla|taglia|tamanho|maat|rozmiar|размер"
_SIDE = r"(?:[ -](?:id|od|l|w|h|d))?(?!\w)"
_TIMES = r" ?[x×] ?"
QUANTITY = re.compile(
    rf"(?<![\w.,/#-])(?:"
    rf"#?{_NUMBER}{_UNIT}?{_SIDE}(?:{_TIMES}{_NUMBER}{_UNIT}?{_SIDE}){{0,4}}{_TIMES}{_NUMBER}{_UNIT}"
    rf"|{_NUMBER}{_UNIT}"
    rf"|(?:\d{{2,}}|\d+[.,]\d+) [glm]"
    rf"|(?:{_SIZED}) \d{{1,3}}(?:[.,]5)?"
    rf"|(?:pack|set|box|case|lot|bag|bundle|packung|paquete|confezione|pacote)"
    rf" (?:of|à|mit|de|da|con) \d+(?:,\d\d\d)*(?: ?pcs)?"
    rf"|lot de \d+|box/\d+|\d+(?:,\d\d\d)* (?:per|/) ?(?:box|pack|case|bag)"
    rf")(?!\w)"
)
