package dev.edgebert.bundle

import dev.edgebert.EdgebertException
import java.io.File
import java.io.FilterInputStream
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipEntry
import java.util.zip.ZipInputStream

/** A bundle in a zip, from a stream that nobody vouches for, to a folder. */
public object BundleZip {
    /**
     * Unpacks a bundle that stands at the zip's root or in its one top folder. It is written beside [into] and renamed,
     * so [into] is there whole or not at all. Whether its files are what the manifest says, `Edgebert.open` finds out.
     *
     * @param stream the zip; it is read to its end, and not closed.
     * @param into the folder to be, which must not be there yet.
     * @throws EdgebertException the zip is none, is damaged, holds no bundle or several, has names that lead elsewhere,
     *     or unpacks to more than a bundle can be.
     */
    @JvmStatic
    public fun unpack(stream: InputStream, into: File): Unit = unpack(stream, into, Limits())

    internal fun unpack(stream: InputStream, into: File, limits: Limits) {
        if (into.exists()) throw EdgebertException("$into is there already: unpack into a new folder.")
        val partial = File(into.absoluteFile.parentFile, ".${into.name}.partial")
        try {
            partial.deleteRecursively()
            Unpacking(stream, partial, limits).all()
            val root = rootOf(partial)
            if (!root.renameTo(into)) throw EdgebertException("$root cannot be renamed to $into.")
        } catch (error: IOException) {
            throw EdgebertException("The zip cannot be unpacked: ${error.message ?: error.javaClass.simpleName}.", error)
        } catch (error: IllegalArgumentException) {
            throw EdgebertException("The zip cannot be unpacked: a name in it is not written in UTF-8.", error)
        } finally {
            partial.deleteRecursively()
        }
    }

    private fun rootOf(unpacked: File): File {
        if (File(unpacked, MANIFEST).isFile) return unpacked
        val tops = unpacked.listFiles().orEmpty()
        val bundles = tops.filter { File(it, MANIFEST).isFile }
        if (bundles.size == 1 && tops.size == 1) return bundles.single()
        val what = when {
            bundles.size > 1 -> "The zip holds ${bundles.size} bundles, ${bundles.map { it.name }.sorted().joinToString()}"
            bundles.size == 1 -> "The zip holds other things beside the bundle ${bundles.single().name}"
            else -> "The zip holds no bundle: there is no $MANIFEST at its root or in its one folder"
        }
        throw EdgebertException("$what; make one with edgebert export --zip.")
    }

    private const val MANIFEST = "manifest.json"
}

/**
 * How much a zip may unpack to. Model files of both kinds end at 2 GiB, and weights gain little by being packed.
 *
 * @property ratio of bytes unpacked to bytes read, which is asked once [ratioFrom] bytes are unpacked.
 */
internal class Limits(
    val entries: Int = 200,
    val entryBytes: Long = 2L shl 30,
    val totalBytes: Long = 4L shl 30,
    val ratio: Int = 100,
    val ratioFrom: Long = 32L shl 20,
)

/** One zip on its way into [folder]. */
private class Unpacking(stream: InputStream, private val folder: File, private val limits: Limits) {
    private val packed = Counting(stream)
    private val zip = ZipInputStream(packed)
    private val buffer = ByteArray(1 shl 16)
    private var entries = 0
    private var total = 0L

    fun all() {
        if (!folder.mkdirs()) throw IOException("$folder cannot be made")
        while (true) {
            val entry = zip.nextEntry ?: break
            if (++entries > limits.entries) {
                throw EdgebertException("The zip has more than ${limits.entries} entries: it is no bundle.")
            }
            if (!isOfFinder(entry.name)) one(entry)
        }
        if (entries == 0) throw EdgebertException("The file is no zip, or an empty one; edgebert export --zip makes one.")
    }

    private fun one(entry: ZipEntry) {
        val file = File(folder, safe(entry.name))
        if (entry.isDirectory) {
            file.mkdirs()
            return
        }
        if (file.exists()) throw EdgebertException("The zip has ${shown(entry.name)} twice: it is damaged.")
        file.parentFile?.mkdirs()
        file.outputStream().use { out ->
            var size = 0L
            while (true) {
                val read = zip.read(buffer)
                if (read < 0) break
                size += read
                total += read
                checkSize(entry.name, size)
                out.write(buffer, 0, read)
            }
        }
    }

    private fun checkSize(name: String, size: Long) {
        val bomb = total > limits.ratioFrom && total / limits.ratio > packed.bytes
        if (size > limits.entryBytes || total > limits.totalBytes || bomb) {
            throw EdgebertException("The zip unpacks to more than a bundle can be, at ${shown(name)}: it was left alone.")
        }
    }

    /** The name of an entry, where it stays inside of the folder. */
    private fun safe(name: String): String {
        val parts = name.removeSuffix("/").split('/')
        val leaves = parts.any { it.isEmpty() || it == "." || it == ".." } || name.any { it in "\\:\u0000" }
        if (leaves) {
            throw EdgebertException("The zip has an entry named ${shown(name)}, which leads out of its folder: refused.")
        }
        return name
    }

    private fun shown(name: String): String = "\"" + name.take(80).filterNot { it.isISOControl() } + "\""

    /** What macOS adds to the zips that it makes. */
    private fun isOfFinder(name: String): Boolean =
        name.startsWith("__MACOSX/") || name.substringAfterLast('/') == ".DS_Store"
}

/** Counts what is read of a stream. */
private class Counting(stream: InputStream) : FilterInputStream(stream) {
    var bytes = 0L
        private set

    override fun read(): Int = super.read().also { if (it >= 0) bytes++ }

    override fun read(b: ByteArray, off: Int, len: Int): Int = super.read(b, off, len).also { if (it > 0) bytes += it }
}
