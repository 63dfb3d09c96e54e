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
        val members = reader.members { name ->
            if (name != "vocab") return@members tree.next()
            if (reader.peek() == JsonToken.BEGIN_OBJECT) words = readWords(reader) else scored = readScored(reader)
            null
        }
        val kind = members["type"]
        val kinds = "supported are wordpiece and unigram"
        if (kind != null && kind != "WordPiece" && kind != "Unigram") refuse("it holds a ${shown(kind)} model; $kinds")
        words?.let { if (kind != "Unigram") return wordPiece(it, members) }
        scored?.let { if (kind != "WordPiece") return unigram(it, members) }
        refuse("its vocab is not that of a ${shown(kind ?: "WordPiece")} model; $kinds")
    }

    private fun wordPiece(pieces: Pieces, members: Map<String, Any?>): Model {
        val prefix = members.text("continuing_subword_prefix")
        if (prefix.length > LONGEST) refuse("its continuing_subword_prefix has ${prefix.length} characters; up to $LONGEST are supported")
        return WordPiece(pieces, members.text("unk_token"), prefix, members.whole("max_input_chars_per_word", LONGEST))
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
