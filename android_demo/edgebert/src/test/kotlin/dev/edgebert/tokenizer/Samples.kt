package dev.edgebert.tokenizer

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.io.encoding.Base64

/** Small tokenizer.json files. */
internal object Samples {
    const val SEPARATOR = """,{"SpecialToken":{"id":"[SEP]","type_id":0}}"""

    /** A WordPiece model of a few pieces, with no mask. */
    const val WORDS = """{"version":"1.0","truncation":null,"padding":null,"added_tokens":[
        {"id":2,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
        "pre_tokenizer":{"type":"BertPreTokenizer"},
        "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},
        {"Sequence":{"id":"A","type_id":0}}$SEPARATOR],"pair":[{"SpecialToken":{"id":"[CLS]","type_id":0}},
        {"Sequence":{"id":"A","type_id":0}}$SEPARATOR,{"Sequence":{"id":"B","type_id":1}},
        {"SpecialToken":{"id":"[SEP]","type_id":1}}],"special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]},
        "[SEP]":{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}},
        "decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
        "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
        "vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"h":4,"##e":5,"##l":6,"##o":7,"o":8,",":9,"##llo":10,"e":11,"l":12}}}"""

    /** A normalization table that makes [text] of [key], as base64. */
    fun table(key: String, text: String): String {
        val units = IntArray(512)
        fun link(at: Int, label: Int, children: Int, leaf: Int) {
            units[at] = label or (leaf shl 8) or (at xor children shl 10)
        }
        var children = 256
        link(0, 0, children, 0)
        val bytes = key.toByteArray()
        for ((i, byte) in bytes.withIndex()) {
            val label = byte.toInt() and 0xFF
            val next = 256 + 17 * (i + 1) // each unit of a short key has a place of its own
            link(children xor label, label, next, if (i == bytes.lastIndex) 1 else 0)
            children = next
        }
        units[children] = Int.MIN_VALUE
        val words = ByteBuffer.allocate(4 + 4 * units.size).order(ByteOrder.LITTLE_ENDIAN)
        words.putInt(4 * units.size)
        units.forEach { words.putInt(it) }
        return Base64.encode(words.array() + text.toByteArray() + 0)
    }

    /** A byte-level BPE model: the 256 bytes, and "the", "Ġthe" and "ll" of them. */
    val BYTES = """{"version":"1.0","added_tokens":[
        {"id":4,"content":"<mask>","single_word":false,"lstrip":true,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":{"type":"NFC"},
        "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
        "post_processor":{"type":"RobertaProcessing","sep":["</s>",2],"cls":["<s>",0],"trim_offsets":true,"add_prefix_space":false},
        "decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
        "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,
        "byte_fallback":false,"ignore_merges":false,"vocab":{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"<mask>":4,${bytes()},
        "th":300,"the":301,"Ġthe":302,"ll":303},"merges":[["t","h"],["l","l"],["th","e"],["Ġ","the"]]}}"""

    private fun bytes(): String = ByteLevel.codes().withIndex().joinToString(",") { (i, code) ->
        val text = code.toChar().toString().replace("\\", "\\\\").replace("\"", "\\\"")
        "\"$text\":${5 + i}"
    }

    /** A Unigram model. */
    val PIECES = """{"version":"1.0","added_tokens":[
        {"id":4,"content":"<mask>","single_word":false,"lstrip":true,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":{"type":"Sequence","normalizers":[{"type":"Precompiled","precompiled_charsmap":"${table("①", "1")}"},
        {"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}]},
        "pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
        "post_processor":{"type":"RobertaProcessing","sep":["</s>",2],"cls":["<s>",0],"trim_offsets":true,"add_prefix_space":true},
        "decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
        "model":{"type":"Unigram","unk_id":3,"byte_fallback":false,"vocab":[["<s>",0.0],["<pad>",0.0],["</s>",0.0],
        ["<unk>",0.0],["▁",-2.5],["a",-3.25],["b",-3.5],["c",-4.0],["abc",-5.0],["1",-6.0]]}}"""
}
