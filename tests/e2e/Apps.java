// Apps.java - servers and clients in Java. Ends with 0, or says what was wrong.
//   threads ADDR PORT                 an echo server, a thread for each connection
//   selector ADDR PORT                an echo server in one thread
//   clients ADDR PORT COUNT ROUNDS    java.net.Socket; what comes back is compared
//   channels ADDR PORT COUNT ROUNDS   SocketChannel without blocking, one selector
import java.io.*;
import java.net.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.util.*;

public class Apps {
	static final int[] SIZES = {1, 1448, 70000, 300000};

	static void fail(String text) {
		System.err.println("Apps: " + text);
		Runtime.getRuntime().halt(1);
	}

	static byte[] block(int seed, int round) {
		byte[] data = new byte[SIZES[round % SIZES.length]];
		new Random(seed * 1000L + round).nextBytes(data);
		return data;
	}

	static void threads(String addr, int port) throws Exception {
		ServerSocket listener = new ServerSocket();
		listener.setReuseAddress(true);
		listener.bind(new InetSocketAddress(addr, port), 128);
		System.out.println("serving");
		while (true) {
			Socket socket = listener.accept();
			Thread thread = new Thread(() -> {
				byte[] buf = new byte[65536];
				try (socket; InputStream in = socket.getInputStream(); OutputStream out = socket.getOutputStream()) {
					for (int n; (n = in.read(buf)) > 0;)
						out.write(buf, 0, n);
				} catch (IOException e) {
					// the client's business
				}
			});
			thread.setDaemon(true);
			thread.start();
		}
	}

	static void selector(String addr, int port) throws Exception {
		Selector selector = Selector.open();
		ServerSocketChannel listener = ServerSocketChannel.open();
		listener.setOption(StandardSocketOptions.SO_REUSEADDR, true);
		listener.bind(new InetSocketAddress(addr, port), 128);
		listener.configureBlocking(false);
		listener.register(selector, SelectionKey.OP_ACCEPT);
		System.out.println("serving");
		while (true) {
			selector.select();
			for (Iterator<SelectionKey> it = selector.selectedKeys().iterator(); it.hasNext();) {
				SelectionKey key = it.next();
				it.remove();
				if (key.isAcceptable()) {
					SocketChannel c = listener.accept();
					if (c == null)
						continue;
					c.configureBlocking(false);
					c.register(selector, SelectionKey.OP_READ, ByteBuffer.allocateDirect(65536));
					continue;
				}
				SocketChannel c = (SocketChannel) key.channel();
				ByteBuffer buf = (ByteBuffer) key.attachment();
				try {
					if (key.isReadable() && c.read(buf) < 0 && buf.position() == 0) {
						c.close();
						continue;
					}
					buf.flip();
					c.write(buf);
					buf.compact();
					key.interestOps((buf.hasRemaining() ? SelectionKey.OP_READ : 0) | (buf.position() > 0 ? SelectionKey.OP_WRITE : 0));
				} catch (IOException e) {
					c.close();
				}
			}
		}
	}

	static void clients(String addr, int port, int count, int rounds) throws Exception {
		List<Thread> all = new ArrayList<>();
		for (int i = 0; i < count; i++) {
			int seed = i;
			Thread thread = new Thread(() -> {
				try (Socket socket = new Socket()) {
					socket.connect(new InetSocketAddress(addr, port), 20000);
					socket.setSoTimeout(20000);
					socket.setTcpNoDelay(true);
					DataInputStream in = new DataInputStream(socket.getInputStream());
					for (int round = 0; round < rounds; round++) {
						byte[] data = block(seed, round), back = new byte[data.length];
						OutputStream out = socket.getOutputStream();
						Thread writer = new Thread(() -> {
							try {
								out.write(data);
							} catch (IOException e) {
								fail("connection " + seed + ": " + e);
							}
						});
						writer.start();
						in.readFully(back);
						writer.join();
						if (!Arrays.equals(data, back))
							fail("connection " + seed + ": what came back differs");
					}
				} catch (Exception e) {
					fail("connection " + seed + ": " + e);
				}
			});
			all.add(thread);
			thread.start();
		}
		for (Thread thread : all)
			thread.join();
	}

	static class State {
		int seed, round;
		ByteBuffer out, back;

		void next() {
			byte[] data = block(seed, round++);
			out = ByteBuffer.wrap(data);
			back = ByteBuffer.allocate(data.length);
		}
	}

	static void channels(String addr, int port, int count, int rounds) throws Exception {
		Selector selector = Selector.open();
		int left = count;
		for (int i = 0; i < count; i++) {
			SocketChannel c = SocketChannel.open();
			c.configureBlocking(false);
			State state = new State();
			state.seed = i;
			c.register(selector, SelectionKey.OP_CONNECT, state);
			c.connect(new InetSocketAddress(addr, port));
		}
		while (left > 0) {
			if (selector.select(20000) == 0)
				fail("nothing happened for 20 s");
			for (Iterator<SelectionKey> it = selector.selectedKeys().iterator(); it.hasNext();) {
				SelectionKey key = it.next();
				it.remove();
				SocketChannel c = (SocketChannel) key.channel();
				State state = (State) key.attachment();
				if (key.isConnectable()) {
					c.finishConnect();
					state.next();
				}
				if (state.out.hasRemaining())
					c.write(state.out);
				if (key.isReadable() && c.read(state.back) < 0)
					fail("connection " + state.seed + " ended");
				if (!state.back.hasRemaining()) {
					if (!Arrays.equals(state.back.array(), state.out.array()))
						fail("connection " + state.seed + ": what came back differs");
					if (state.round == rounds) {
						c.close();
						left--;
						continue;
					}
					state.next();
				}
				key.interestOps(SelectionKey.OP_READ | (state.out.hasRemaining() ? SelectionKey.OP_WRITE : 0));
			}
		}
	}

	public static void main(String[] args) throws Exception {
		int port = Integer.parseInt(args[2]);
		switch (args[0]) {
		case "threads" -> threads(args[1], port);
		case "selector" -> selector(args[1], port);
		case "clients" -> clients(args[1], port, Integer.parseInt(args[3]), Integer.parseInt(args[4]));
		case "channels" -> channels(args[1], port, Integer.parseInt(args[3]), Integer.parseInt(args[4]));
		default -> fail("unknown command");
		}
	}
}
