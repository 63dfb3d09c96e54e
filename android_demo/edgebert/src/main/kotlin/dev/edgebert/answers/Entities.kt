package dev.edgebert.answers

import dev.edgebert.Entities
import dev.edgebert.Entity
import dev.edgebert.Labelled
import dev.edgebert.bundle.Manifest
import dev.edgebert.tokenizer.Encoding
import dev.edgebert.tokenizer.Tokenizer

/*
 * Labels of tokens, of the words that they make, and of the entities that words make, as Python's
 * `edgebert.answers.entities` finds them.
 */

private const val OUTSIDE = "O"

/** The letters of BILOU for those of BIOES. */
private val LETTERS = mapOf("L" to "E", "U" to "S")

/** One word: its pieces, the text that it is of (0 or 1), its place there, its first piece's label and that one's score. */
private class Word(
    val tokens: List<String>,
    val sequence: Int,
    val start: Int,
    val end: Int,
    val label: String,
    val score: Double,
)

/** What is said of each token, word and entity, from logits (T, labels). */
internal fun entities(text: String, pair: String?, asked: Asked, manifest: Manifest, words: Tokenizer): Entities {
    val encoding = asked.encodings[0]
    val logits = asked.outputs[0].getValue("logits")
    val texts = listOf(text, pair.orEmpty())
    val tokens = encoding.ids.indices.filterNot { encoding.special[it] }.map { i ->
        val scores = applied(manifest.reading.activation, logits.row(i).values)
        val best = best(scores)
        i to Labelled(
            encoding.tokens[i], encoding.starts[i], encoding.ends[i], manifest.labels[best], scores[best],
            encoding.sequences[i] == 1,
        )
    }
    val found = joined(texts, encoding, tokens, words)
    return Entities(
        text = text,
        pair = pair,
        tokens = tokens.map { it.second },
        words = found.map {
            Labelled(words.join(it.tokens), it.start, it.end, it.label, it.score, it.sequence == 1)
        },
        entities = groups(found, manifest.labels).map { (kind, group) -> entity(texts, kind, group, words) },
        truncated = asked.truncated,
        tokenCount = asked.tokenCount,
    )
}

private fun joined(
    texts: List<String>,
    encoding: Encoding,
    tokens: List<Pair<Int, Labelled>>,
    words: Tokenizer,
): List<Word> {
    val found = ArrayList<Word>()
    for ((i, token) in tokens) {
        val own = texts[encoding.sequences[i]]
        val last = found.lastOrNull()
        if (last != null && last.sequence == encoding.sequences[i] && continues(own, encoding, i, words)) {
            found[found.size - 1] =
                Word(last.tokens + encoding.tokens[i], last.sequence, last.start, token.end, last.label, last.score)
        } else {
            val unknown = encoding.ids[i] == words.unkId
            val spelt = if (unknown) own.substring(token.start, token.end) else encoding.tokens[i]
            found += Word(listOf(spelt), encoding.sequences[i], token.start, token.end, token.label, token.score)
        }
    }
    return found
}

/** Whether a token goes on with the word before it. */
private fun continues(text: String, encoding: Encoding, place: Int, words: Tokenizer): Boolean {
    if (encoding.ids[place] == words.unkId) return false
    if (words.kind == "wordpiece") return encoding.tokens[place].startsWith(words.continuingPrefix)
    val start = encoding.starts[place]
    return start > 0 && text[start - 1] != ' ' && (start >= text.length || text[start] != ' ')
}

private fun entity(texts: List<String>, kind: String, group: List<Word>, words: Tokenizer): Entity {
    val (start, end) = group.first().start to group.last().end
    return Entity(
        kind = kind,
        score = group.map { it.score }.average(),
        word = words.join(group.flatMap { it.tokens }),
        text = texts[group.first().sequence].substring(start, end),
        start = start,
        end = end,
        ofPair = group.first().sequence == 1,
    )
}

/** Entities: their kind and their words, what is outside left out. */
private fun groups(found: List<Word>, labels: List<String>): List<Pair<String, List<Word>>> {
    val ends = labels.any { it.take(2) in listOf("E-", "S-", "L-", "U-") } && labels.any { it.startsWith("B-") }
    val groups = ArrayList<Pair<String, List<Word>>>()
    var group = ArrayList<Word>()
    var before = OUTSIDE
    var kindBefore = ""
    for (word in found) {
        val (letter, kind) = parsed(word.label, ends)
        val starts = letter in listOf("B", "S") || kind != kindBefore || before in listOf("E", "S", OUTSIDE) ||
            group.lastOrNull()?.sequence != word.sequence
        if (group.isNotEmpty() && (starts || letter == OUTSIDE)) {
            groups += kindBefore to group
            group = ArrayList()
        }
        if (letter != OUTSIDE) group.add(word)
        before = letter
        kindBefore = kind
    }
    if (group.isNotEmpty()) groups += kindBefore to group
    return groups
}

/** A label's letter (B, I, O, and E and S where ends are told) and its kind. */
private fun parsed(label: String, ends: Boolean): Pair<String, String> {
    if (label == OUTSIDE) return OUTSIDE to ""
    val first = label.substringBefore('-')
    val letter = if (ends) LETTERS[first] ?: first else first
    val known = if (ends) listOf("B", "I", "E", "S") else listOf("B", "I")
    return if ('-' in label && letter in known) letter to label.substringAfter('-') else "I" to label
}
