"""What a page says around the notebook's own words, in each language."""

ROOTS = {"en": "", "zh": "../"}  # the way from a language's pages to the top of the site
WORDS = {
    "en": {
        "lang": "en",
        "index": "All notebooks",
        "before": "Before",
        "after": "Next",
        "other": "中文版",
        "other_lang": "zh-CN",
        "skip": "To the text",
        "copy": "copy this line",
        "link": "link to this setting",
        "copied": "copied",
        "selected": "selected",
        "map_how": "The arrow keys walk over the map; a click chooses a cell.",
        "stop": "setting",
        "live": "This page has no kernel: what moves here was measured ahead of time. "
        "`make lab` opens the same notebook with every slider live. "
        "A copied line runs after `from labkit import Bench`.",
        "no_script": "Where JavaScript runs, this picture moves.",
        "too_old": "This browser cannot unpack the pictures that move; the still one stays.",
    },
    "zh": {
        "lang": "zh-CN",
        "index": "全部笔记本",
        "before": "上一篇",
        "after": "下一篇",
        "other": "English",
        "other_lang": "en",
        "skip": "跳到正文",
        "copy": "复制这一行",
        "link": "此设置的链接",
        "copied": "已复制",
        "selected": "已选中",
        "map_how": "方向键在图上移动，单击选择一格。",
        "stop": "设置",
        "live": "本页没有内核：这里能移动的一切都是事先测量的。"
        "`make lab` 打开同一个笔记本，所有滑块都是实时的。"
        "复制的代码行在 `from labkit import Bench` 之后即可运行。",
        "no_script": "启用 JavaScript 后，这张图可以移动。",
        "too_old": "此浏览器无法解开可移动的图；静态图仍在。",
    },
}

INDEX = {
    "en": {
        "title": "Gradients that die and numbers that blow up",
        "lead": "Every notebook of the lab as a page that needs no kernel and no network. "
        "Sliders and maps move by mouse and by key, through settings that were measured.",
        "by_symptom": "What do you see?",
        "symptom": "symptom",
        "page": "go to",
        "foreign": "(in English)",
        "by_part": "By part",
        "minutes": "minutes",
        "parts": {
            "0": "Start",
            "1": "Part I: gradients that never arrive",
            "2": "Part II: where NaN and Inf are born",
            "3": "Part III: practice",
            "4": "Part IV: the hunt",
            "9": "Reference",
        },
    },
    "zh": {
        "title": "消失的梯度与爆炸的数值",
        "lead": "实验室的笔记本，无需内核、无需网络即可阅读。"
        "滑块和图可用鼠标或键盘移动，每个位置都是事先测量的。",
        "by_symptom": "你看到了什么？",
        "symptom": "现象",
        "page": "去这里",
        "foreign": "（英文）",
        "by_part": "按部分",
        "minutes": "分钟",
        "parts": {
            "0": "开始",
            "1": "第一部分：到不了的梯度",
            "2": "第二部分：NaN 与 Inf 在哪里产生",
            "3": "第三部分：实践",
            "4": "第四部分：追查",
            "9": "参考",
        },
    },
}
