"""Wishes in many languages and scripts find the item that they are about, fitted or not."""

import numpy as np
import pytest

from app.embedders import HybridEmbedder
from tree.passage import Passage
from tree.vectors import cosines, inverse_norms

# An item, and words for it that are not its own.
WISHES = {
    "Chinese": [
        ("无线蓝牙耳机，降噪，续航三十小时", "降噪的蓝牙耳机"),
        ("儿童科学实验玩具套装", "给孩子的科学玩具"),
        ("纯棉夏季短袖T恤", "夏天穿的短袖"),
        ("不锈钢保温杯五百毫升", "保温的杯子"),
        ("红烧牛肉方便面", "牛肉味的面"),
        ("中国古代历史小说", "关于古代历史的书"),
        ("户外露营帐篷四人", "露营用的帐篷"),
        ("智能手机防摔保护壳", "手机壳"),
        ("瑜伽垫加厚防滑", "做瑜伽的垫子"),
        ("婴儿湿巾柔软无香", "宝宝用的湿巾"),
    ],
    "Japanese": [
        ("防水ハイキングブーツ 軽量", "山を歩く軽い防水の靴 ハイキング"),
        ("抹茶チョコレート詰め合わせ", "抹茶のお菓子 チョコレート"),
        ("木製の子供用パズル", "子供のための木のパズル"),
        ("ステンレス製の包丁", "料理用の包丁"),
        ("電気ケトル 一リットル", "お湯を沸かすケトル"),
        ("推理小説 古い屋敷の謎", "屋敷の謎を解く推理小説"),
        ("猫用の爪とぎ", "猫が爪をとぐもの"),
        ("折りたたみ自転車", "折りたためる自転車"),
        ("加湿器 静音", "静かな加湿器"),
        ("日本酒の入門書", "日本酒について学ぶ本"),
    ],
    "Thai": [
        ("หูฟังไร้สายตัดเสียงรบกวน", "หูฟังตัดเสียงรบกวน"),
        ("รองเท้าวิ่งสำหรับผู้หญิง", "รองเท้าวิ่งผู้หญิง"),
        ("กระทะเหล็กหล่อขนาดใหญ่", "กระทะใหญ่"),
        ("ของเล่นไม้สำหรับเด็ก", "ของเล่นเด็ก"),
        ("นิยายสืบสวนสอบสวน", "นิยายสืบสวน"),
        ("เต็นท์สำหรับสี่คน", "เต็นท์สี่คน"),
        ("เสื้อกันฝนสีฟ้า", "เสื้อกันฝน"),
        ("แก้วกาแฟเซรามิก", "แก้วกาแฟ"),
        ("จักรยานพับได้", "จักรยานพับ"),
        ("หมอนรองคอสำหรับเดินทาง", "หมอนเดินทาง"),
    ],
    "German compounds": [
        ("Kinderfahrradhelm mit Lüftung", "Helm für das Fahrrad meines Kindes"),
        ("Winterstiefel gefüttert", "Stiefel für den Winter"),
        ("Kaffeevollautomat mit Mahlwerk", "Automat für Kaffee"),
        ("Gartenschlauch zwanzig Meter", "Schlauch für den Garten"),
        ("Schreibtischlampe dimmbar", "Lampe für den Schreibtisch"),
        ("Kriminalroman aus Hamburg", "ein Roman über ein Verbrechen in Hamburg"),
        ("Hundekissen waschbar", "Kissen für den Hund"),
        ("Regenjacke für Damen", "Jacke gegen Regen"),
        ("Holzspielzeugeisenbahn", "Eisenbahn aus Holz"),
        ("Wanderkarte Schwarzwald", "Karte zum Wandern im Schwarzwald"),
    ],
    "French without accents": [
        ("Théière en fonte émaillée", "theiere en fonte"),
        ("Forêt enchantée, conte pour enfants", "conte de foret pour les enfants"),
        ("Épée en mousse pour déguisement", "epee pour se deguiser"),
        ("Crème hydratante à l'aloès", "creme a l'aloes"),
        ("Vélo électrique pliant", "velo electrique"),
        ("Gâteau au chocolat prêt à cuire", "gateau chocolat"),
        ("Écouteurs sans fil", "ecouteurs sans fil"),
        ("Pâtes fraîches aux œufs", "pates fraiches"),
        ("Tapis d'éveil bébé", "tapis pour bebe"),
        ("Été à la mer, roman", "roman d'ete a la mer"),
    ],
    "full-width letters": [
        ("ＵＳＢ－Ｃ ケーブル ２ｍ", "USB-C 2m"),
        ("ＤＶＤ プレーヤー", "DVD"),
        ("Ｔシャツ Ｍ サイズ", "Tシャツ M"),
        ("ＨＤＭＩ 変換アダプタ", "HDMI 変換"),
        ("ＬＥＤ 電球 Ｅ２６", "LED E26"),
        ("ＣＤ ラジカセ", "CD ラジカセ"),
        ("ＧＰＳ ウォッチ", "GPS"),
        ("ＮＡＳ ４ＴＢ", "NAS 4TB"),
        ("ＰＣ モニター ２７インチ", "PC モニター 27"),
        ("Ｗｉ－Ｆｉ ルーター", "Wi-Fi ルーター"),
    ],
    "Arabic": [
        ("سماعات لاسلكية عازلة للضوضاء", "سماعات تعزل الضوضاء"),
        ("حذاء رياضي للجري", "حذاء للجري"),
        ("كتاب تاريخ الأندلس", "تاريخ الأندلس"),
        ("مصباح مكتب قابل للتعتيم", "مصباح للمكتب"),
        ("لعبة خشبية للأطفال", "لعبة للأطفال من خشب"),
        ("خيمة لأربعة أشخاص", "خيمة لأربعة"),
        ("قهوة عربية بالهيل", "قهوة بالهيل"),
        ("سجادة صلاة قطنية", "سجادة صلاة"),
        ("دراجة قابلة للطي", "دراجة تطوى"),
        ("مظلة مقاومة للرياح", "مظلة ضد الرياح"),
    ],
}
ITEMS = [item for pairs in WISHES.values() for item, _ in pairs]


@pytest.fixture(scope="module", params=["unfitted", "fitted"])
def embedder(request: pytest.FixtureRequest) -> HybridEmbedder:
    return HybridEmbedder() if request.param == "unfitted" else HybridEmbedder.fit(ITEMS * 2)


@pytest.mark.parametrize("language", WISHES)
def test_a_wish_finds_its_item_among_all(embedder: HybridEmbedder, language: str) -> None:
    rows = embedder.encode(ITEMS)
    words = [wish for _, wish in WISHES[language]]
    directions = embedder.encode([Passage(text, is_wish=True) for text in words])
    found = cosines(rows, inverse_norms(rows), directions).argmax(axis=0)
    assert [ITEMS[at] for at in found] == [item for item, _ in WISHES[language]]


def test_width_case_and_blanks_are_not_meant(embedder: HybridEmbedder) -> None:
    one, other = embedder.encode(["\uff35\uff33\uff22\u3000cable", "usb  CABLE"])
    assert np.array_equal(one, other)
