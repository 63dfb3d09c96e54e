package dev.edgebert.tokenizer

import com.google.gson.stream.JsonReader
import com.google.gson.stream.JsonToken

/** Reads the model of a tokenizer.json. Its vocabulary goes straight into arrays: as a tree it would take ten times as much. */
internal object ModelReader {
    /** The largest published vocabulary of BERT's family has 501,153 pieces. */
    const val MOST_PIECES: Int = 1 shl 20

    // Of a Unigram model: bytes of all pieces together, and of one.
    private const val MOST_BYTES = 2_800_000
    private const val LONGEST = 256

    fun read(tree: JsonTree): Model {
        val reader = tree.reader
        if (reader.peek() != JsonToken.BEGIN_OBJECT) refuse("it has no model")
        var words: Pieces? = null
        var scored: Scored? = null
        var merges: Pairs? = null
        val members = reader.members { name ->
            when {
                name == "merges" && reader.peek() == JsonToken.BEGIN_ARRAY -> merges = readMerges(reader)
                name != "vocab" -> return@members tree.next()
                reader.peek() == JsonToken.BEGIN_OBJECT -> words = readWords(reader)
                else -> scored = readScored(reader)
            }
            null
        }
        // The first files of BERT's and RoBERTa's do not name it.
        val kind = members["type"] ?: if (merges != null) "BPE" else null
        val kinds = "supported are wordpiece, unigram and bpe"
        if (kind != null && kind != "WordPiece" && kind != "Unigram" && kind != "BPE") refuse("it holds a ${shown(kind)} model; $kinds")
        words?.let { if (kind == "BPE") return bpe(it, merges ?: refuse("its bpe model has no merges"), members) }
        words?.let { if (kind != "Unigram") return wordPiece(it, members) }
        scored?.let { if (kind != "WordPiece" && kind != "BPE") return unigram(it, members) }
        refuse("its vocab is not that of a ${shown(kind ?: "WordPiece")} model; $kinds")
    }

    private fun wordPiece(pieces: Pieces, members: Map<String, Any?>): Model {
        val prefix = members.text("continuing_subword_prefix")
        if (prefix.length > LONGEST) refuse("its continuing_subword_prefix has ${prefix.length} characters; up to $LONGEST are supported")
        return WordPiece(pieces, members.text("unk_token"), prefix, members.whole("max_input_chars_per_word", LONGEST))
    }

    private fun bpe(pieces: Pieces, pairs: Pairs, members: Map<String, Any?>): Model {
        for (name in listOf("continuing_subword_prefix", "end_of_word_suffix")) {
            val value = members[name]
            if (value != null && value != "") refuse("its $name is ${shown(value)}; a byte-level model has none")
        }
        val dropout = members["dropout"]
        if (dropout != null && (dropout as? JsonNumber)?.text?.toDoubleOrNull() != 0.0) refuse("its dropout is ${shown(dropout)}, by which ids are left to chance")
        if (members.flagOr("byte_fallback", false)) refuse("its byte_fallback is true; a byte-level model has none")
        if (pieces.distinct < pieces.count) refuse("two pieces of its vocabulary have the same id")
        val unknown = members["unk_token"]?.let { members.text("unk_token") }
        return Bpe(pieces, merges(pieces, pairs), unknown, members.flagOr("fuse_unk", false), members.flagOr("ignore_merges", false))
    }

    private fun Map<String, Any?>.flagOr(name: String, usual: Boolean): Boolean = if (this[name] == null) usual else flag(name)

    private fun merges(pieces: Pieces, pairs: Pairs): Merges {
        val merges = Merges(pairs.count)
        for (rank in 0 until pairs.count) {
            val first = pairs.text(2 * rank)
            val second = pairs.text(2 * rank + 1)
            fun id(piece: String): Int = pieces.id(piece).also {
                if (it == Trie.NONE) refuse("of ${shown(first)} and ${shown(second)} a piece is merged, and its vocabulary lacks ${shown(piece)}")
            }
            merges.add(id(first), id(second), id(first + second))
        }
        return merges
    }

    /** Texts in pairs, one after the other: as Strings of their own they would take several times as much. */
    private class Pairs {
        private val texts = StringBuilder()
        private var ends = IntArray(1 shl 10)
        private var size = 0
        val count: Int get() = size / 2

        fun add(text: String) {
            texts.append(text)
            if (size == ends.size) ends = ends.copyOf(2 * size)
            ends[size++] = texts.length
        }

        fun text(i: Int): String = texts.substring(if (i == 0) 0 else ends[i - 1], ends[i])
    }

    /** Pairs of texts, or all of them texts with a space inside. */
    private fun readMerges(reader: JsonReader): Pairs {
        val pairs = Pairs()
        reader.beginArray()
        val kind = reader.peek()
        while (reader.hasNext()) {
            if (pairs.count == MOST_PIECES) refuse("it has more than $MOST_PIECES merges")
            if (reader.peek() != kind) refuse("its merges are written in more than one way")
            if (kind == JsonToken.BEGIN_ARRAY) readPair(reader, pairs) else splitPair(reader, pairs)
        }
        reader.endArray()
        return pairs
    }

    private fun readPair(reader: JsonReader, pairs: Pairs) {
        reader.beginArray()
        repeat(2) {
            if (reader.peek() != JsonToken.STRING) refuse("merge ${pairs.count} is no pair of texts")
            pairs.add(reader.nextString())
        }
        reader.endArray()
    }

    private fun splitPair(reader: JsonReader, pairs: Pairs) {
        if (reader.peek() != JsonToken.STRING) refuse("merge ${pairs.count} is no pair of texts")
        val text = reader.nextString()
        if (text.startsWith("#version")) return // as the first line of a merges.txt
        val space = text.indexOf(' ')
        if (space < 0 || space != text.lastIndexOf(' ')) refuse("the merge ${shown(text)} is no pair of texts")
        pairs.add(text.substring(0, space))
        pairs.add(text.substring(space + 1))
    }

    private fun unigram(scored: Scored, members: Map<String, Any?>): Model {
        val count = scored.count
        val unknown = members["unk_id"] ?: refuse("its model has no unk_id, which stands for what it cannot spell")
        val id = wholeOf(unknown, "unk_id", count - 1)
        val fallback = if ("byte_fallback" in members) members.flag("byte_fallback") else false
        return Unigram(scored.pieces, scored.scores.copyOf(count), id, fallback)
    }

    private fun readWords(reader: JsonReader): Pieces {
        val pieces = Pieces()
        reader.beginObject()
        while (reader.hasNext()) {
            val piece = reader.nextName()
            if (reader.peek() != JsonToken.NUMBER) refuse("the piece ${shown(piece)} has no number for an id")
            val known = pieces.count
            pieces.add(piece, wholeOf(JsonNumber(reader.number()), "id of the piece ${shown(piece)}", MOST_PIECES - 1))
            if (pieces.count == known) refuse("the key ${shown(piece)} comes twice")
        }
        reader.endObject()
        return pieces
    }

    private class Scored {
        val pieces = Pieces()
        var scores = DoubleArray(1 shl 10)
        var count = 0
    }

    private fun readScored(reader: JsonReader): Scored {
        if (reader.peek() != JsonToken.BEGIN_ARRAY) refuse("its vocab is neither an object nor a list")
        val scored = Scored()
        var bytes = 0
        reader.beginArray()
        while (reader.hasNext()) {
            if (scored.count == MOST_PIECES) refuse("it has more than $MOST_PIECES pieces")
            reader.beginArray()
            if (reader.peek() != JsonToken.STRING) refuse("piece ${scored.count} of its vocabulary is no text")
            val piece = reader.nextString()
            if (reader.peek() != JsonToken.NUMBER) refuse("the piece ${shown(piece)} has no number for a score")
            val score = rustDouble(reader.number()) ?: refuse("the piece ${shown(piece)} has a score that is too large")
            reader.endArray()
            val size = scored.pieces.add(piece, scored.count)
            bytes += size
            if (size > LONGEST || bytes > MOST_BYTES) {
                refuse("its pieces have more than $MOST_BYTES bytes, or one of them more than $LONGEST")
            }
            if (scored.count == scored.scores.size) scored.scores = scored.scores.copyOf(2 * scored.count)
            scored.scores[scored.count++] = score
        }
        reader.endArray()
        return scored
    }
}
