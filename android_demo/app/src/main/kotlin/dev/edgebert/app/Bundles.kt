package dev.edgebert.app

import android.content.Context
import android.net.Uri
import dev.edgebert.Edgebert
import dev.edgebert.EdgebertException
import dev.edgebert.bundle.BundleZip
import dev.edgebert.bundle.Manifest
import org.json.JSONException
import org.json.JSONObject
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.util.UUID

/** An open bundle, and where it is from: a folder, or null for the app's assets. */
internal class Opened(val edgebert: Edgebert, val folder: File?, val delegated: Double?) {
    val name: String get() = nameOf(edgebert.manifest)
    val task: Task = Task.of(edgebert.manifest.task)

    companion object {
        /** The bundle as it is shown: its model, its kind of file, how it is rounded. */
        fun nameOf(manifest: Manifest): String {
            val source = manifest.source.trimEnd('/').substringAfterLast('/').filterNot { it.isISOControl() }
            return "$source-${manifest.target}-${manifest.recipe}".take(200)
        }
    }
}

/** The bundles that the app has: one in its assets, and one that the user opened. */
internal class Bundles(private val app: Context) {
    private val folder = File(app.filesDir, "bundles")
    private val kept = app.getSharedPreferences("bundles", Context.MODE_PRIVATE)

    val hasBuiltIn: Boolean get() = app.assets.list(BUILT_IN).orEmpty().contains(MANIFEST)

    /** The folder of the bundle that the user opened; null where the built-in one is to be taken. */
    val chosen: File? get() = kept.getString(CHOSEN, null)?.let { File(folder, it) }?.takeIf { it.isDirectory }

    /** The bundle to work with; null where the app has none. Throws what [Edgebert.open] does. */
    fun open(threads: Int = Edgebert.BIG_CORES): Opened? {
        chosen?.let { return open(it, threads) }
        return if (hasBuiltIn) open(null, threads) else null
    }

    /** Opens the same bundle once more, on as many threads. */
    fun open(folder: File?, threads: Int = Edgebert.BIG_CORES): Opened {
        val edgebert = if (folder == null) {
            Edgebert.open(app.assets, BUILT_IN, threads)
        } else {
            Edgebert.open(folder, threads)
        }
        return try {
            Opened(edgebert, folder, delegated(folder))
        } catch (error: EdgebertException) {
            edgebert.close()
            throw error
        }
    }

    /**
     * Unpacks a zip, opens what is in it, and keeps it as the chosen bundle. Where that fails, the previous one stays.
     *
     * @throws EdgebertException the zip or the bundle in it is refused.
     */
    fun take(zip: Uri): Opened {
        folder.mkdirs()
        val into = File(folder, UUID.randomUUID().toString())
        try {
            stream(zip).use { BundleZip.unpack(it, into) }
            return open(into).also { choose(into) }
        } finally {
            if (chosen != into) into.deleteRecursively()
        }
    }

    /** Forgets the chosen bundle; what is built in comes back. */
    fun forget() = choose(null)

    private fun choose(one: File?) {
        kept.edit().putString(CHOSEN, one?.name).commit()
        for (other in folder.listFiles().orEmpty()) if (other != one) other.deleteRecursively()
    }

    private fun stream(zip: Uri): InputStream = try {
        app.contentResolver.openInputStream(zip) ?: throw FileNotFoundException()
    } catch (error: IOException) {
        throw EdgebertException("The file cannot be read: ${error.message ?: "it is not there any more"}.", error)
    } catch (error: SecurityException) {
        throw EdgebertException("The file cannot be read: this app was not given it.", error)
    }

    /** The share of the arithmetic that a fast backend takes, as the manifest tells; null where it does not. */
    private fun delegated(folder: File?): Double? = try {
        val manifest = folder?.let { File(it, MANIFEST).inputStream() } ?: app.assets.open("$BUILT_IN/$MANIFEST")
        JSONObject(manifest.use { it.readBytes().toString(Charsets.UTF_8) })
            .optJSONObject("graph")?.optJSONObject("delegation")?.optDouble("share")?.takeIf { it in 0.0..1.0 }
    } catch (_: JSONException) {
        null
    }

    private companion object {
        const val BUILT_IN = "bundle"
        const val MANIFEST = "manifest.json"
        const val CHOSEN = "chosen"
    }
}
