package dev.edgebert.answers

import dev.edgebert.EdgebertException
import dev.edgebert.Pieces
import dev.edgebert.Replaced
import dev.edgebert.Scored
import dev.edgebert.Suspect
import dev.edgebert.bundle.Reading
import dev.edgebert.engines.Tensor
import dev.edgebert.tokenizer.Tokenizer

/** Pieces that are told of a place. */
private const val TOP = 5

/** The likeliest pieces for each [MASK], from logits (T, V). */
internal fun fill(asked: Asked, reading: Reading, words: Tokenizer): Pieces {
    val encoding = asked.encodings[0]
    val places = encoding.ids.indices.filter { encoding.ids[it] == words.maskId }
    val mask = words.decode(intArrayOf(words.maskId), skipSpecial = false)
    if (places.isEmpty() && asked.tokenCount > encoding.size) {
        throw EdgebertException(
            "the first ${encoding.size} of the text's ${asked.tokenCount} tokens, which the file takes, have no " +
                "$mask: shorten the text, or export with a longer length.",
        )
    }
    if (places.isEmpty()) throw EdgebertException("the text has no $mask to fill: put one where a word is wanted.")
    return told(asked, places, reading, words)
}

/** The likeliest pieces after a text's last one; the closing [SEP] is no part of the text. */
internal fun next(asked: Asked, reading: Reading, words: Tokenizer): Pieces =
    told(asked, listOf(asked.encodings[0].size - 2), reading, words)

private fun told(asked: Asked, places: List<Int>, reading: Reading, words: Tokenizer): Pieces {
    val logits = asked.outputs[0].getValue("logits")
    val filled = places.map { place ->
        // Rows above the vocabulary fill the table up to a round size.
        val scores = applied(reading.activation, logits.row(place).values).let {
            it.copyOf(minOf(it.size, words.vocabSize))
        }
        highest(scores).map { Scored(words.decode(intArrayOf(it), skipSpecial = false), scores[it]) }
    }
    val (label, score) = filled[0][0]
    return Pieces(label, score, filled, asked.truncated, asked.tokenCount)
}

/** Places of the [TOP] highest scores, the highest first, of equal ones the first; without sorting a vocabulary. */
private fun highest(scores: DoubleArray): List<Int> {
    val found = ArrayList<Int>(TOP + 1)
    for (i in scores.indices) {
        if (found.size == TOP && scores[i] <= scores[found.last()]) continue
        found.add(found.indexOfLast { scores[it] >= scores[i] } + 1, i)
        if (found.size > TOP) found.removeAt(TOP)
    }
    return found
}

/** How much each token looks replaced, from logits (T, 1). */
internal fun replaced(text: String, pair: String?, asked: Asked, reading: Reading): Replaced {
    val encoding = asked.encodings[0]
    val scores = applied(reading.activation, asked.outputs[0].getValue("logits").values)
    val suspects = encoding.ids.indices.filterNot { encoding.special[it] }.map {
        Suspect(
            encoding.tokens[it], encoding.starts[it], encoding.ends[it], scores[it], encoding.sequences[it] == 1,
        )
    }
    return Replaced(text, pair, suspects, asked.truncated, asked.tokenCount)
}
