package dev.edgebert.bundle

import android.content.res.AssetManager
import dev.edgebert.EdgebertException
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.io.RandomAccessFile
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** A bundle's files, wherever they are. Names are paths below the bundle, with `/` between folders. */
internal interface BundleFiles {
    /** Where the bundle is, for messages. */
    val place: String

    /** Opens a file; [FileNotFoundException] where it is not there. */
    fun open(name: String): InputStream

    /** A file's bytes, mapped where they can be; [FileNotFoundException] where it is not there. */
    fun map(name: String): ByteBuffer
}

/** A bundle in a folder. */
internal class FolderFiles(private val folder: File) : BundleFiles {
    override val place: String get() = folder.path

    override fun open(name: String): InputStream = file(name).inputStream()

    override fun map(name: String): ByteBuffer =
        RandomAccessFile(file(name), "r").use { it.channel.map(FileChannel.MapMode.READ_ONLY, 0, it.length()) }

    private fun file(name: String): File {
        val file = File(folder, name)
        // Pipes and devices would keep a reader for ever.
        if (!file.isFile) throw FileNotFoundException(file.path)
        return file
    }
}

/** A bundle in a folder of an app's assets. */
internal class AssetFiles(private val assets: AssetManager, private val folder: String) : BundleFiles {
    override val place: String get() = "assets/$folder"

    override fun open(name: String): InputStream = assets.open("$folder/$name", AssetManager.ACCESS_STREAMING)

    override fun map(name: String): ByteBuffer {
        val stored = try {
            assets.openFd("$folder/$name")
        } catch (_: FileNotFoundException) {
            return open(name).use(::direct) // compressed in the APK, or not there
        }
        stored.use { part ->
            val mapped = part.createInputStream().use {
                it.channel.map(FileChannel.MapMode.READ_ONLY, part.startOffset, part.length)
            }
            // Runtimes read numbers where they stand; `edgebert app` aligns them, other builders may not.
            return if (part.startOffset % ALIGNMENT == 0L) mapped else direct(mapped)
        }
    }

    private fun direct(mapped: ByteBuffer): ByteBuffer =
        ByteBuffer.allocateDirect(mapped.remaining()).apply {
            put(mapped)
            (this as Buffer).rewind() // ByteBuffer's own is not on Android 24
        }

    private fun direct(stream: InputStream): ByteBuffer {
        val bytes = stream.readBytes()
        return ByteBuffer.allocateDirect(bytes.size).apply {
            put(bytes)
            (this as Buffer).rewind() // ByteBuffer's own is not on Android 24
        }
    }

    private companion object {
        /** Of a flatbuffer's vectors, in bytes. */
        const val ALIGNMENT = 16L
    }
}

/** Does something with a file, and makes of what Java throws a sentence that names it. */
internal fun <T> BundleFiles.reading(name: String, action: () -> T): T =
    try {
        action()
    } catch (_: FileNotFoundException) {
        throw EdgebertException("$place has no $name, which its manifest lists: copy the whole bundle, or export again.")
    } catch (error: IOException) {
        throw EdgebertException("$place/$name cannot be read: ${error.message}.", error)
    }
